"""Exports a network as a stock TensorFlow Lite file in float32 or int8, as a baseline for the bitpacked file.

There are two kinds of such twins. By default, binary convolutions become ordinary convolutions of ±1 with ±1, so that
the file computes the same as the binary network. An `ordinary` twin is what an engineer would deploy without
binarization, with ReLU instead of the sign, zero padding, and fused batch normalization and ReLU. It has the same
layers and MACs, so its size and latency are a fair comparison; its outputs are meaningless, because its weights were
not trained.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import tensorflow as tf

from kbnn import files
from kbnn.converters.errors import ConversionError
from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.lowering import serving
from kbnn.converters.graph.operations import Affine, BinaryConvolution, Clip, Convolution, Operation, Sign
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes.affine import merge_affine
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.converter import with_names
from kbnn.converters.tflite.metadata import Description, with_metadata
from kbnn.converters.verify.diagnosis import loops
from kbnn.errors import KbnnError, UsageError
from kbnn.native_output import held_stderr
from kbnn.precision import in_float32


def export_float(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    description: Description | None = None,
    *,
    ordinary: bool = False,
) -> None:
    """Writes the network in float32.

    Args:
        model: the Keras model.
        path: where to write the file.
        description: what an app needs to know; it becomes the file's metadata, as in `convert`.
        ordinary: use ReLU and zero padding instead of signs, to compare only size and latency.

    Raises:
        ConversionError: the input has an unknown size.
        KbnnError: TensorFlow Lite cannot convert the model, or the file cannot be written.
    """
    _export(model, path, description, ordinary)


def export_int8(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    images: np.ndarray,
    description: Description | None = None,
    *,
    ordinary: bool = False,
) -> None:
    """Writes the network in int8, including input and output, with ranges from calibration images `(B, ...)`.

    For the other arguments see `export_float`.

    Raises:
        ConversionError: the input has an unknown size, or a layer is a loop.
        UsageError: there are no images, or the model has several inputs.
        KbnnError: TensorFlow Lite cannot convert the model, or the file cannot be written.
    """
    if len(model.inputs) > 1:
        raise UsageError(
            f"an int8 twin has one input: model '{model.name}' has {len(model.inputs)}, export it with export_float"
        )
    if not len(images):
        raise UsageError("int8 needs calibration images: received none, give some of the training images")

    def samples() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None].astype(np.float32)]

    def set_up(converter: tf.lite.TFLiteConverter) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8

    _export(model, path, description, ordinary, set_up)


def as_ordinary(graph: Graph) -> Graph:
    """The network without binarization: every value whose sign is taken is rectified instead, as in a ResNet."""
    graph = graph.rewritten(Sign, _rectified)
    return merge_affine(graph.with_nodes(*(replace(node, operation=_real(node.operation)) for node in graph)))


def _rectified(graph: Graph, sign: Node, _: Sign) -> Graph:
    source = _before_threshold(graph, graph[sign.inputs[0]])
    rectified = replace(sign, operation=Clip(0.0, math.inf), inputs=(source.name,))
    return graph.with_nodes(rectified).redirected(source.name, sign.name)


def _before_threshold(graph: Graph, node: Node) -> Node:
    """The value behind a shift that only a sign needs."""
    while isinstance(node.operation, Affine) and node.operation.is_shift and graph.sole_consumer(node.name) is not None:
        node = graph[node.inputs[0]]
    return node


def _real(operation: Operation) -> Operation:
    """A binary convolution as a real-valued one with zero padding; its magnitudes vary as after training."""
    if not isinstance(operation, BinaryConvolution):
        return operation
    kernel = operation.kernel * np.random.default_rng(0).uniform(0.5, 1.5, operation.kernel.shape)
    padding = "same" if any(any(sides) for sides in operation.padding) else "valid"
    return Convolution(
        kernel / np.sqrt(kernel[..., 0].size),
        np.zeros(kernel.shape[-1]),
        operation.strides,
        operation.dilations,
        padding,
        operation.groups,
    )


def _export(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    description: Description | None,
    ordinary: bool,
    in_int8: Callable[[tf.lite.TFLiteConverter], None] | None = None,
) -> None:
    reference = Reference(in_float32(model))
    looped = loops(reference)
    if looped and in_int8:
        raise ConversionError(
            f"layer '{looped[0]}' is a loop, which TensorFlow Lite cannot convert to int8: build it with unroll=True"
        )
    if looped:
        # TensorFlow Lite converts a loop only if its shapes are static.
        reference = Reference(reference.model, batch=1)
    graph = lift(reference)
    graph = as_ordinary(graph) if ordinary else graph
    trace = serving(graph)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([trace.module.serve], trace.module)
    if in_int8 is not None:
        in_int8(converter)
    file = with_names(flatbuffer.parse(_convert(converter, model.name)), trace, graph)
    files.write(path, with_metadata(file, (description or Description()).of_model(model.name)))


def _convert(converter: tf.lite.TFLiteConverter, name: str) -> bytes:
    try:
        with held_stderr(), warnings.catch_warnings():
            # The warning does not apply: calibration images give the statistics.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
            return converter.convert()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise KbnnError(f"TensorFlow Lite cannot convert model '{name}': {reason}") from error
