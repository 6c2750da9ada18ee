"""TensorFlow Lite files: LCE's converter and interpreter, the FlatBuffer, its metadata and its audit."""
