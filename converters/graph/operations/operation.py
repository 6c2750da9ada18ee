"""The base class of operations, with the rewritings that passes ask for, and the operations without any."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

Shape = tuple[int, ...]
# The name scope of the operations in an `Opaque`.
IMPORT = "o"
# TensorFlow's operations that only move or select values.
_MOVES = frozenset(
    (
        *("AvgPool", "BatchToSpaceND", "BroadcastTo", "ConcatV2", "DepthToSpace", "ExpandDims", "GatherV2", "Identity"),
        *("Max", "MaxPool", "Maximum", "Min", "Minimum", "MirrorPad", "Pack", "Pad", "PadV2", "Reshape", "ReverseV2"),
        *("ResizeBilinear", "ResizeNearestNeighbor", "Select", "SelectV2", "Slice", "SpaceToBatchND", "SpaceToDepth"),
        *("Split", "SplitV", "Squeeze", "StridedSlice", "Tile", "Transpose", "Unpack"),
    )
)
_COMPARES = frozenset(
    ("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr", "NotEqual")
)

# The limits of the levels of TensorFlow Lite's int8 operators that do not depend on data: multiples of 1/256 and 1/128.
FIXED_LIMITS = {"Softmax": (0.0, 255 / 256), "Sigmoid": (0.0, 255 / 256), "Tanh": (-1.0, 127 / 128)}

_INTEGERS = frozenset((tf.int32.as_datatype_enum, tf.int64.as_datatype_enum))


class Operation:
    """A function f of tensors `(B, ..., C)`, and the exact rewritings that it allows.

    By default it allows none. A new operation defines `__call__`, in a form that the converter recognizes, and
    overrides the rewritings that apply to it; passes call these methods and do not look at the class. A rewriting that
    is not possible returns None. Vectors hold one number per channel.
    """

    # Whether it is, or may contain, a convolution or a matrix product.
    convolves = False

    @property
    def rounding_step(self) -> float:
        """How much its value changes if a number halfway between two levels is rounded the other way."""
        return 0.0

    @property
    def fixed_limits(self) -> tuple[float, float] | None:
        """The limits of its int8 values, if they do not depend on data."""
        return None

    @property
    def rounding_share(self) -> float:
        """How far constants that `with_int8_constants` cannot round move its value, as a fraction of its rms."""
        return 0.0

    @property
    def moves_values(self) -> bool:
        """Whether it only moves or selects values, so that input and output must have the same int8 levels."""
        return False

    @property
    def is_max_pool(self) -> bool:
        """Whether it takes maxima over windows of each channel, which commute with increasing functions."""
        return False

    @property
    def is_fused(self) -> bool:
        """Whether TensorFlow Lite fuses it into the operator before it."""
        return False

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def then_affine(self, scale: np.ndarray, offset: np.ndarray) -> "Operation | None":
        """The operation that computes f(x)·scale + offset."""
        return None

    def raised(self, shift: np.ndarray) -> "Operation | None":
        """The operation that computes f(x) + shift at the same cost, by a change of its constants."""
        return None

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        """Alternative ways to get f(x) + shift by raising inputs, each as shifts by the number of the input.

        Args:
            shift: by how much the value is raised.
            channels: the number of channels of each input.
        """
        return []

    def compensated(self, surplus: np.ndarray) -> "Operation | None":
        """The operation g with g(x + surplus) = f(x), at the same cost; for operations with one input."""
        return None

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray | None:
        """How much the value grows when input number `source` grows by `surplus`; None if that depends on x."""
        return None

    def permuted(self, order: np.ndarray) -> "Operation | None":
        """The operation g with g(x[..., order]) = f(x)[..., order]."""
        return None

    def writing(self, order: np.ndarray) -> "Operation | None":
        """The operation g with g(x) = f(x)[..., order]."""
        return None

    def reading(self, order: np.ndarray) -> "Operation | None":
        """The operation g with g(x[..., order]) = f(x)."""
        return None

    def threshold_before(self, threshold: np.ndarray) -> np.ndarray | None:
        """The u such that f(x) >= threshold if and only if x >= u; None if there is none."""
        return None

    def same_sign(self) -> "Operation":
        """A cheaper operation whose value has the same sign, or this one."""
        return self

    def with_int8_constants(self) -> "Operation":
        """The operation with its constants rounded as TensorFlow Lite rounds them for int8 arithmetic."""
        return self


@dataclass(frozen=True, eq=False)
class Input(Operation):
    """An input of the network; the node has its name."""

    dtype: tf.DType = tf.float32


@dataclass(frozen=True, eq=False)
class Opaque(Operation):
    """A part of Keras's graph as it is, for layers without a rule.

    In `graph_def` its operations are named "0", "1", … and its inputs "i0", "i1", …; `results` are the tensors that it
    returns, and `operations` the names of its operations in Keras's graph.
    """

    graph_def: GraphDef
    results: Sequence[str]
    operations: Sequence[str]

    convolves = True

    @property
    def moves_values(self) -> bool:
        """Whether it computes nothing but conditions and sizes, such as the size of an image that is enlarged."""
        nodes = [node for node in self.graph_def.node if node.op not in (*_COMPARES, "Const", "Shape")]
        nodes = [node for node in nodes if "T" not in node.attr or node.attr["T"].type not in _INTEGERS]
        types = {node.attr[key].type for node in nodes for key in ("T", "Tparams") if key in node.attr}
        return (
            len(self.results) == 1 and types == {tf.float32.as_datatype_enum} and {node.op for node in nodes} <= _MOVES
        )

    @property
    def fixed_limits(self) -> tuple[float, float] | None:
        """Those of the TensorFlow Lite operator that computes its results."""
        kinds = {node.name: node.op for node in self.graph_def.node}
        found = {FIXED_LIMITS.get(kinds.get(name.split(":")[0], "")) for name in self.results}
        return found.pop() if len(found) == 1 else None

    @functools.cached_property
    def rounding_share(self) -> float:
        """The rms error of rounded constants relative to their rms, which is also that of sums of products."""
        nodes = [node for node in self.graph_def.node if node.op == "Const"]
        constants = [tf.make_ndarray(node.attr["value"].tensor) for node in nodes]
        kernels = [value for value in constants if value.dtype == np.float32 and value.size > 1 and np.any(value)]
        steps = [np.abs(kernel).max() / 127 / np.sqrt(np.mean(np.square(kernel))) for kernel in kernels]
        return float(max(steps, default=0.0) / np.sqrt(12))

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
        outputs = self._traced(inputs)(*inputs) if tf.executing_eagerly() else self._imported(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _imported(self, *inputs: tf.Tensor) -> list[tf.Tensor]:
        given = {f"i{k}:0": value for k, value in enumerate(inputs)}
        return tf.graph_util.import_graph_def(
            self.graph_def, input_map=given, return_elements=list(self.results), name=IMPORT
        )

    def _traced(self, inputs: Sequence[tf.Tensor]) -> Callable[..., list[tf.Tensor]]:
        """A function for inputs of these shapes. A `tf.function` would warn when it is traced for several shapes."""
        shapes = tuple(tuple(value.shape) for value in inputs)
        if shapes not in self._functions:
            specs = [tf.TensorSpec(value.shape, value.dtype) for value in inputs]
            self._functions[shapes] = tf.function(self._imported, autograph=False).get_concrete_function(*specs)
        return self._functions[shapes]

    @functools.cached_property
    def _functions(self) -> dict[tuple[Shape, ...], Callable[..., list[tf.Tensor]]]:
        return {}
