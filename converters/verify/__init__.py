"""Verifies that a file computes what Keras computes: kernel bits, layers and outputs."""
