"""Data sets as batches for training and as arrays for checking."""
