"""The same network as a stock TensorFlow Lite file, in float32 or int8: what a bitpacked file is measured against.

Binary convolutions become ordinary convolutions of ±1 with ±1, their results unchanged, so the three files have the
same layers and MACs; the runtime is TensorFlow Lite's own. What it takes to make float values signs is in these files
too: for a float network without any, give the real-valued twin (method "float").
"""

import os
import warnings
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from kbnn import files
from kbnn.converters import flatbuffer
from kbnn.converters.deploy.lifting import lift
from kbnn.converters.description import Description, with_metadata
from kbnn.converters.lowering import serving
from kbnn.converters.precision import in_float32
from kbnn.converters.quiet import held_stderr
from kbnn.converters.reference import Reference
from kbnn.errors import KbnnError, UsageError


def export_float(model: tf.keras.Model, path: str | os.PathLike[str], description: Description | None = None) -> None:
    """Writes the network in float32; `description` becomes the file's metadata, as in `convert`.

    Raises:
        ConversionError: the input has an unknown size.
        KbnnError: TensorFlow Lite cannot convert the model, or the file cannot be written.
    """
    _write(path, _convert(_converter(model), model), model, description)


def export_int8(
    model: tf.keras.Model, path: str | os.PathLike[str], images: np.ndarray, description: Description | None = None
) -> None:
    """Writes the network in int8 throughout, input and output too, with ranges from calibration images `(B, ...)`.

    `description` becomes the file's metadata, as in `convert`.

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
    _write(path, _convert(converter, model), model, description)


def _write(path: str | os.PathLike[str], data: bytes, model: tf.keras.Model, description: Description | None) -> None:
    described = (description or Description()).of_model(model.name)
    files.write(path, with_metadata(flatbuffer.parse(data), described))


def _converter(model: tf.keras.Model) -> tf.lite.TFLiteConverter:
    module = serving(lift(Reference(in_float32(model)))).module
    return tf.lite.TFLiteConverter.from_concrete_functions([module.serve], module)


def _convert(converter: tf.lite.TFLiteConverter, model: tf.keras.Model) -> bytes:
    try:
        with held_stderr(), warnings.catch_warnings():
            # Calibration images give the statistics; TensorFlow Lite's front end does not look at them.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
            return converter.convert()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise KbnnError(f"TensorFlow Lite cannot convert model '{model.name}': {reason}") from error
