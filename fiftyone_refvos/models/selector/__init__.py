"""Key frame selectors: which frame of a video shows best what an expression names."""
