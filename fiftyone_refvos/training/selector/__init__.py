"""Training the language key frame selector as published: from pseudo-labels, on any videos that have them."""
