"""The same network as a stock TensorFlow Lite file, in float32 or int8: what a bitpacked file is measured against.

Binary convolutions become ordinary convolutions of ±1 with ±1, their results unchanged, so the three files
have the same layers and MACs; the runtime is TensorFlow Lite's own.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kbnn import files
from kbnn.converters.binary_layers import binary_calls
from kbnn.converters.precision import in_float32
from kbnn.converters.quiet import held_stderr
from kbnn.converters.reference import Reference
from kbnn.errors import KbnnError, UsageError


def export_float(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes the network in float32.

    Raises:
        ConversionError: the input has an unknown size.
        KbnnError: TensorFlow Lite cannot convert the model, or the file cannot be written.
    """
    files.write(path, _convert(_converter(model), model))


def export_int8(model: tf.keras.Model, path: str | os.PathLike[str], images: np.ndarray) -> None:
    """Writes the network in int8 throughout, input and output too, with ranges from calibration images `(B, ...)`.

    Raises:
        ConversionError: the input has an unknown size.
        UsageError: no images.
        KbnnError: TensorFlow Lite cannot convert the model, or the file cannot be written.
    """
    if not len(images):
        raise UsageError("int8 needs calibration images: received none")

    def samples() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None].astype(np.float32)]

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    files.write(path, _convert(converter, model))


def _converter(model: tf.keras.Model) -> tf.lite.TFLiteConverter:
    network = Reference(in_float32(model))
    module = tf.Module()
    module.serve = _with_constant_kernels(network)
    return tf.lite.TFLiteConverter.from_concrete_functions([module.serve], module)


def _with_constant_kernels(network: Reference) -> Any:
    """The network as a function of one image, kernels binarized: the converter would leave that to each inference."""
    names = [name for binary in binary_calls(network) for name in binary.kernels]
    image = {name: np.zeros(spec.shape, np.float32) for name, spec in network.signature.items()}
    kernels = dict(zip(names, network.values(image, names), strict=True))
    frozen = convert_variables_to_constants_v2(network.function)
    # A function's arguments are flattened in the order of their names.
    placeholders = dict(zip(sorted(network.signature), frozen.inputs, strict=True))

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        constants = {name: tf.constant(kernel) for name, kernel in kernels.items()}
        fed = {placeholders[name].name: value for name, value in inputs.items()}
        outputs = tf.graph_util.import_graph_def(
            frozen.graph.as_graph_def(), {**constants, **fed}, list(network.outputs.values()), name=""
        )
        return dict(zip(network.outputs, outputs, strict=True))

    return tf.function(serve, autograph=False).get_concrete_function(**network.signature)


def _convert(converter: tf.lite.TFLiteConverter, model: tf.keras.Model) -> bytes:
    try:
        with held_stderr():
            return converter.convert()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise KbnnError(f"TensorFlow Lite cannot convert model '{model.name}': {reason}") from error
