"""Builds the file of a traced model; the same model and options always give the same bytes."""

from importlib.metadata import version

import tensorflow as tf

import kbnn
from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.passes.gathered_bias import gathered_bias
from kbnn.converters.passes.hybrid import stored_hybrid
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.converter import lower
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.int8_weights import rounded, stored_as_int8
from kbnn.converters.tflite.metadata import Description, with_metadata


def reference_for(keras: Reference, options: Options) -> Reference:
    """What a file with these options must compute."""
    return rounded(keras, options.in_16_bits, options.in_32_bits) if options.weights == "int8" else keras


def made_with() -> dict[str, str]:
    """The versions that a file's bytes depend on."""
    tools = f"tensorflow {tf.__version__}, larq-compute-engine {version('larq-compute-engine')}"
    return {"version": kbnn.__version__, "tools": tools}


def build(keras: Reference, options: Options, description: Description) -> tuple[File, Graph]:
    """Builds the file of a model, without checking it; also returns the graph that the file was made from.

    Raises:
        ConversionError: LCE cannot convert the graph.
        KbnnError: the options name a pass that this version of kbnn does not have.
    """
    reference = reference_for(keras, options)
    graph = deploy(reference, options)
    # Both hold several times the memory of the weights, which the converter needs.
    keras.release()
    reference.release()
    file = lower(graph, {**description.to_json(), **options.to_json(), **made_with()})
    return flatbuffer.parse(with_metadata(_in_form(file, options), description)), graph


def _in_form(file: File, options: Options) -> File:
    """Applies the options that change a finished file."""
    if options.hybrid:
        file = stored_hybrid(file, options.hybrid)
    if options.weights == "int8":
        file = stored_as_int8(file, options.in_16_bits, options.in_32_bits)
    return gathered_bias(file, options.gathered) if options.gathered else file
