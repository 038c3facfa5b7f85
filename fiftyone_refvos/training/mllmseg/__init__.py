"""Training MLLMSeg as published: from images, expressions and masks, on any images that have them."""
