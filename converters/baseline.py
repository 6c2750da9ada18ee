"""The same network as a stock TensorFlow Lite file, in float32 or int8: what a bitpacked file is measured against.

Binary convolutions become ordinary convolutions of ±1 with ±1, their results unchanged, so the three files have the
same layers and MACs; the runtime is TensorFlow Lite's own. What it takes to make float values signs is in these files
too: for a float network without any, give the real-valued twin (method "float").
"""

import os
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from kbnn import files
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.lowering import serving
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.converter import with_names
from kbnn.converters.tflite.metadata import Description, with_metadata
from kbnn.errors import KbnnError, UsageError
from kbnn.native_output import held_stderr
from kbnn.precision import in_float32


def export_float(model: tf.keras.Model, path: str | os.PathLike[str], description: Description | None = None) -> None:
    """Writes the network in float32; `description` becomes the file's metadata, as in `convert`.

    Raises:
        ConversionError: the input has an unknown size.
        KbnnError: TensorFlow Lite cannot convert the model, or the file cannot be written.
    """
    _export(model, path, description, lambda converter: None)


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

    def in_int8(converter: tf.lite.TFLiteConverter) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8

    _export(model, path, description, in_int8)


def _export(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    description: Description | None,
    set_up: Callable[[tf.lite.TFLiteConverter], None],
) -> None:
    graph = lift(Reference(in_float32(model)))
    trace = serving(graph)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([trace.module.serve], trace.module)
    set_up(converter)
    file = with_names(flatbuffer.parse(_convert(converter, model.name)), trace, graph)
    files.write(path, with_metadata(file, (description or Description()).of_model(model.name)))


def _convert(converter: tf.lite.TFLiteConverter, name: str) -> bytes:
    try:
        with held_stderr(), warnings.catch_warnings():
            # Calibration images give the statistics; TensorFlow Lite's front end does not look at them.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
            return converter.convert()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise KbnnError(f"TensorFlow Lite cannot convert model '{name}': {reason}") from error
