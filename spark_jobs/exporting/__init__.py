"""Forms of the training set that other trainers read, a file for each part."""
