"""Sa2VA: multimodal language models of three families whose [SEG] states prompt SAM2."""
