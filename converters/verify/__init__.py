"""Whether a file computes what Keras computes: kernel bits, layers, outputs."""
