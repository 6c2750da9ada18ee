"""The operations of the intermediate form: one class each, with the rewritings that passes ask it for."""

from kbnn.converters.graph.operations.convolutions import (
    NO_LAYER,
    BinaryConvolution,
    Convolution,
    Dense,
    DepthwiseConvolution,
)
from kbnn.converters.graph.operations.elementwise import (
    Add,
    Affine,
    Clip,
    ElementwiseFunction,
    Kept,
    Maximum,
    PReLU,
    Sign,
    Subtract,
)
from kbnn.converters.graph.operations.moves import (
    Concatenate,
    Pad,
    PadChannels,
    Part,
    Reorder,
    Reshape,
    Shuffle,
    Split,
)
from kbnn.converters.graph.operations.operation import IMPORT, Input, Opaque, Operation, Shape
from kbnn.converters.graph.operations.statistics import Centre, GlobalMean, Normalize, Pool

__all__ = [
    "IMPORT",
    "NO_LAYER",
    "Add",
    "Affine",
    "BinaryConvolution",
    "Centre",
    "Clip",
    "Concatenate",
    "Convolution",
    "Dense",
    "DepthwiseConvolution",
    "ElementwiseFunction",
    "GlobalMean",
    "Input",
    "Kept",
    "Maximum",
    "Normalize",
    "Opaque",
    "Operation",
    "PReLU",
    "Pad",
    "PadChannels",
    "Part",
    "Pool",
    "Reorder",
    "Reshape",
    "Shape",
    "Shuffle",
    "Sign",
    "Split",
    "Subtract",
]
