"""What an operation is, and what the passes ask of it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Shape = tuple[int, ...]
# The name scope that the operations of `Opaque` are in.
IMPORT = "o"


class Operation:
    """A function of tensors `(B, ..., C)`, and the exact rewritings that it allows.

    The defaults allow none. A new operation defines `__call__`, in a form that the converter recognizes, and the
    methods that apply to it; passes ask these methods and do not look at the class. Vectors have a number per channel.
    """

    # Whether it is, or may hold, a convolution or a matrix product.
    convolves = False

    @property
    def rounding_step(self) -> float:
        """By how much its value moves if a number that it rounds takes the next level, where two are equally near."""
        return 0.0

    @property
    def moves_values(self) -> bool:
        """Whether it only moves or selects values: TensorFlow Lite requires the same int8 levels before and after."""
        return False

    @property
    def is_fused(self) -> bool:
        """Whether TensorFlow Lite computes it within the operator before it."""
        return False

    def __call__(self, *inputs: Any) -> Any:
        raise NotImplementedError

    def then_affine(self, scale: np.ndarray, offset: np.ndarray) -> "Operation | None":
        """One operation that computes f(x)·scale + offset."""
        return None

    def raised(self, shift: np.ndarray) -> "Operation | None":
        """The operation that computes f(x) + shift at the same cost, with a constant that it has anyway."""
        return None

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        """Alternative ways to get f(x) + shift by raising inputs: shifts by the number of the input.

        Args:
            shift: by how much the value shall be larger.
            channels: how many channels each input has.
        """
        return []

    def compensated(self, surplus: np.ndarray) -> "Operation | None":
        """The operation g with g(x + surplus) = f(x), at the same cost; for operations of one input."""
        return None

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray | None:
        """By how much the value is larger when input number `source` is larger by `surplus`; None if it depends."""
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
        """The u for which f(x) >= threshold exactly where x >= u; None where f does not rise strictly."""
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
    """A part of Keras's graph as it is, for what no rule knows.

    Its operations are numbered "0", "1", … in `graph_def`, where they read its inputs by the names "i0", "i1", …;
    `results` are the tensors that it returns, and `operations` the names that its operations have in Keras's graph.
    """

    graph_def: Any
    results: Sequence[str]
    operations: Sequence[str]

    convolves = True

    def __call__(self, *inputs: tf.Tensor) -> Any:
        outputs = self._eager(*inputs) if tf.executing_eagerly() else self._imported(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _imported(self, *inputs: tf.Tensor) -> Any:
        given = {f"i{k}:0": value for k, value in enumerate(inputs)}
        return tf.graph_util.import_graph_def(
            self.graph_def, input_map=given, return_elements=list(self.results), name=IMPORT
        )

    @functools.cached_property
    def _eager(self) -> Callable[..., Any]:
        return tf.function(self._imported, autograph=False, reduce_retracing=True)
