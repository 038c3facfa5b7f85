"""Fine-tuning GLUS as published, on any source of videos with expressions and masks."""
