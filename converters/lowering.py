"""Keras model -> TFLite bytes, by Larq Compute Engine's converter."""

import tempfile
from typing import Any

import tensorflow as tf

from kbnn.converters import reference
from kbnn.converters.errors import ConversionError
from kbnn.converters.quiet import held_stderr


def lower(model: tf.keras.Model) -> bytes:
    """The bitpacked flatbuffer of a model with a batch of 1, its inputs and outputs named as Keras names them.

    The converter's own `convert_keras_model` is not used: on any exception it falls back to another path, whose files
    differ, and only warns.

    Raises:
        ConversionError: the converter fails.
    """
    with tempfile.TemporaryDirectory(prefix="kbnn-") as folder, held_stderr() as log:
        try:
            # Deferred: it loads a native library of 190 MB, and TensorFlow before it.
            from larq_compute_engine import convert_saved_model

            module = _serving(model)
            tf.saved_model.save(module, folder, signatures=module.serve)
            return convert_saved_model(folder)
        except ConversionError:
            raise
        except Exception as error:
            said = "; ".join(log.lines("error:")) or " ".join(str(error).split())
            raise ConversionError(
                f"LCE cannot convert model '{model.name}': {said[:400]}; replace the layer that it names"
            ) from error


def _serving(model: tf.keras.Model) -> Any:
    """A module with one function, `serve`, of fixed shapes."""
    specs = reference.signature(model)

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return reference.output_names(model, reference.call(model, {name: inputs[name] for name in specs}))

    module = tf.Module()
    module.serve = tf.function(serve, autograph=False).get_concrete_function(**specs)
    # The variables alone: a Keras model as an attribute would have every one of its layers traced once more.
    module.captured = module.serve.graph.variables
    return module
