"""MLLMSeg: referring segmentation of images by a multimodal language model and a light-weight mask decoder."""
