"""TensorFlow Lite files: LCE's converter and interpreter, the flatbuffer, its metadata and its audit."""
