"""How glus-tiny is trained from nothing: its parts first, as CLIP, SAM2 and LLaVA were before GLUS, then all."""
