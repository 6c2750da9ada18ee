"""The intermediate form of a network: a graph of simple operations, traced from Keras and lowered for a converter."""
