"""What feeds the step: who reads which rows, readers, decoding, augmentation, texts, batches."""
