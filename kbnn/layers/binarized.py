"""The base of the binary convolution and the binary dense layer: a float32 kernel, an output scale, and its penalty."""

import inspect
import math
import numbers
from collections.abc import Callable
from typing import TypeAlias

import larq as lq
import tensorflow as tf

from kbnn import quantizers, regularizers
from kbnn._keras import Config
from kbnn.constraints import Positive
from kbnn.errors import UsageError, unknown
from kbnn.quantizers.base import Constraint, Estimator, mean_magnitude
from kbnn.quantizers.registry import Identifier
from kbnn.structure import latent, quantize

# A Keras regularizer of (latent kernel, scale), its configuration or its name.
ScaleRegularizer: TypeAlias = tf.keras.regularizers.Regularizer | Config | str | None

SCALES = ("mean_abs", "learned")
SCALE_INITIALIZERS = ("mean", "median")
SCALE_SCOPES = ("filter", "layer")


class Binarized(tf.keras.layers.Layer):
    """Mixin for Larq's layers that binarizes the latent kernel in float32 and scales the output.

    Weights are float32 under every policy. The kernel is binarized before it is cast to the compute dtype, so that
    half precision cannot round a small weight to zero and change its sign. `alpha` is the learned scale: a positive
    value per output channel, or one for the layer.
    """

    def __init__(
        self,
        *args: object,
        input_quantizer: Identifier = None,
        kernel_quantizer: Identifier = None,
        scale: str | None = None,
        scale_scope: str = "filter",
        scale_initializer: str | float = "mean",
        scale_regularizer: ScaleRegularizer = None,
        **kwargs: object,
    ) -> None:
        name = kwargs.get("name") or type(self).__name__
        input_quantizer = quantizers.get(input_quantizer, f"input_quantizer of {name}", "activation")
        super().__init__(*args, input_quantizer=input_quantizer, **kwargs)
        # Keras's own check would reject an input with too few axes before `build` can name the layer.
        self.input_spec = None
        # Not passed to Larq, which warns about binary kernels without a constraint; some methods need none.
        self.kernel_quantizer = lq.quantizers.get_kernel_quantizer(
            quantizers.get(kernel_quantizer, f"kernel_quantizer of {name}", "kernel")
        )
        self.scale = scale
        self.scale_scope = scale_scope
        self.scale_initializer = scale_initializer
        self.scale_regularizer = tf.keras.regularizers.get(scale_regularizer)
        self._check_arguments()

    def _check_arguments(self) -> None:
        if quantizers.kind_of(self.input_quantizer) == "kernel":
            raise UsageError(
                f"{self.name}: received input_quantizer={type(self.input_quantizer).__name__}, which binarizes "
                f"kernels; pass it as kernel_quantizer"
            )
        if self.scale is not None and self.scale not in SCALES:
            raise unknown(f"scale of {self.name}", str(self.scale), SCALES)
        if self.scale_scope not in SCALE_SCOPES:
            raise unknown(f"scale_scope of {self.name}", str(self.scale_scope), SCALE_SCOPES)
        self._check_regularizers()
        if not isinstance(self.scale_initializer, numbers.Real):
            if self.scale_initializer not in SCALE_INITIALIZERS:
                raise unknown(f"scale_initializer of {self.name}", str(self.scale_initializer), SCALE_INITIALIZERS)
        elif not 0 < self.scale_initializer < math.inf:
            raise UsageError(
                f"{self.name}: scale_initializer must be positive and finite, received {self.scale_initializer}"
            )

    def _check_regularizers(self) -> None:
        if self.kernel_regularizer is not None and not _takes(self.kernel_regularizer, 1):
            raise UsageError(
                f"{self.name}: kernel_regularizer is a penalty of the latent kernel alone, received "
                f"{type(self.kernel_regularizer).__name__}; pass a penalty of (W, α) as scale_regularizer"
            )
        if self.scale_regularizer is None:
            return
        if self.scale != "learned":
            raise UsageError(f"{self.name}: scale_regularizer needs scale='learned', received scale={self.scale!r}")
        if not _takes(self.scale_regularizer, 2):
            raise UsageError(
                f"{self.name}: scale_regularizer is a penalty of (W, α) such as kbnn.regularizers.Manhattan, received "
                f"{type(self.scale_regularizer).__name__}; pass a penalty of W alone as kernel_regularizer"
            )

    def add_weight(
        self, name: str | None = None, *, constraint: Constraint | None = None, **kwargs: object
    ) -> tf.Variable:
        kwargs["dtype"] = tf.float32
        if name in ("kernel", "alpha"):
            kwargs["experimental_autocast"] = False
        if name == "kernel" and isinstance(self.kernel_quantizer, quantizers.KernelQuantizer):
            constraint = _chained(self.kernel_quantizer.constraint(), constraint)
        return super().add_weight(name=name, constraint=constraint, **kwargs)

    def build(self, input_shape: tf.TensorShape) -> None:
        super().build(input_shape)
        # Built here rather than in the first call, so that their parameters exist once the layer is built.
        self._build_quantizer(self.input_quantizer, input_shape)
        self._build_quantizer(self.kernel_quantizer, self.kernel.shape)
        if isinstance(self.kernel_regularizer, regularizers.MedianLoss):
            self.kernel_regularizer.attach(self)
        self.alpha = None
        if self.scale == "learned":
            channels = self.kernel.shape[-1] if self.scale_scope == "filter" else 1
            self.alpha = self.add_weight(
                name="alpha", shape=(channels,), initializer=self._initial_alpha, constraint=Positive()
            )
        if self.scale_regularizer is not None:
            self.add_loss(self._scale_penalty)

    def _build_quantizer(self, quantizer: object, shape: tf.TensorShape) -> None:
        if isinstance(quantizer, tf.keras.layers.Layer) and not quantizer.built:
            with tf.name_scope(quantizer.name):
                quantizer.build(shape)

    def _initial_alpha(self, shape: tf.TensorShape, dtype: tf.DType | None = None) -> tf.Tensor:
        if isinstance(self.scale_initializer, numbers.Real):
            return tf.fill(shape, tf.cast(self.scale_initializer, dtype))
        statistic = mean_magnitude if self.scale_initializer == "mean" else _median_magnitude
        # The magnitude of a zero filter is 0: its scale starts at the constraint's lower bound instead.
        return Positive()(tf.cast(statistic(self._in_scope()), dtype))

    def _in_scope(self) -> tf.Tensor:
        """The latent kernel with one column per scale: per filter, or one for the layer."""
        kernel = tf.convert_to_tensor(self.latent_kernel)
        return kernel if self.scale_scope == "filter" else tf.reshape(kernel, [-1, 1])

    def restart_scale(self) -> None:
        """Reinitializes a learned scale from the current kernel. Call it after loading another kernel."""
        if self.alpha is not None:
            self.alpha.assign(self._initial_alpha(self.alpha.shape, self.alpha.dtype))

    def _scale_penalty(self) -> tf.Tensor:
        return self.scale_regularizer(tf.convert_to_tensor(self.latent_kernel), tf.convert_to_tensor(self.alpha))

    @property
    def latent_kernel(self) -> tf.Variable:
        """The trained real-valued kernel, in float32."""
        return latent(self.kernel)

    def binarized_kernel(self) -> tf.Tensor:
        """The quantized latent kernel, which the layer multiplies by, in float32."""
        return quantize(self.kernel_quantizer, tf.convert_to_tensor(self.latent_kernel))

    def output_scale(self) -> tf.Tensor | None:
        """The scale of the output, `(filters,)` or a scalar, in float32; None if the layer has none."""
        scale, values = self._scale(), self._values()
        if values is None:
            return scale
        return values[0] if scale is None else values[0] * scale

    def output_offset(self, kernel: tf.Tensor | None = None) -> tf.Tensor | None:
        """The offset of the scaled output, per channel, in float32: β·s·ΣW if signs stand for β ± α, otherwise None.

        Args:
            kernel: the result of `binarized_kernel`, if already computed.
        """
        values = self._values()
        if values is None:
            return None
        kernel = self.binarized_kernel() if kernel is None else kernel
        total = values[1] * tf.reduce_sum(kernel, list(range(len(kernel.shape) - 1)))
        scale = self._scale()
        return total if scale is None else total * scale

    def _values(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """(α, β) if the signs of the input stand for β ± α, otherwise None."""
        return self.input_quantizer.values() if isinstance(self.input_quantizer, Estimator) else None

    def _scale(self) -> tf.Tensor | None:
        """The scale s that the layer was configured with."""
        if self.scale == "learned":
            return tf.convert_to_tensor(self.alpha)
        if self.scale == "mean_abs":
            return tf.stop_gradient(mean_magnitude(self._in_scope()))
        return None

    def _binarized_input(self, inputs: tf.Tensor) -> tf.Tensor:
        return quantize(self.input_quantizer, inputs)

    def _finish(self, outputs: tf.Tensor, scale: tf.Tensor | None, offset: tf.Tensor | None) -> tf.Tensor:
        """Applies scale, offset, bias and activation to the accumulated products."""
        if scale is not None:
            outputs = outputs * tf.cast(scale, outputs.dtype)
        if offset is not None:
            outputs = tf.nn.bias_add(outputs, tf.cast(offset, outputs.dtype))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "scale": self.scale,
            "scale_scope": self.scale_scope,
            "scale_initializer": self.scale_initializer,
            "scale_regularizer": tf.keras.regularizers.serialize(self.scale_regularizer),
        }


def _takes(penalty: Callable[..., tf.Tensor], arguments: int) -> bool:
    """Whether a penalty can be called with this number of arguments."""
    try:
        inspect.signature(penalty).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # It has no signature, as some functions that are not written in Python.
        return True
    return True


def _chained(first: Constraint | None, second: Constraint | None) -> Constraint | None:
    if first is None or second is None:
        return first or second
    return lambda w: second(first(w))


def _median_magnitude(w: tf.Tensor) -> tf.Tensor:
    """median(abs(W)) per filter. Sorts, which is affordable because it runs only when the layer is built."""
    ordered = tf.sort(tf.reshape(tf.abs(w), [-1, w.shape[-1]]), axis=0)
    n = ordered.shape[0]
    return ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2
