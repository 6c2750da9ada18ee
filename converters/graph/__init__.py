"""The intermediate form of a network: traced from Keras, a list of simple operations, lowered for a converter."""
