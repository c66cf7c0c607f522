"""From images to CLIP's vectors: what the job embed_images and the functions for DataFrames share."""
