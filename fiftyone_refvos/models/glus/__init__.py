"""GLUS: global reasoning over context frames, local reasoning over query frames, SAM2 masks with memory."""
