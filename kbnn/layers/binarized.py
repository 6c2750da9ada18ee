"""What the binary convolution and the binary dense layer share: a float32 kernel, an output scale and its penalty."""

import numbers
from typing import Any

import larq as lq
import tensorflow as tf

from kbnn import regularizers
from kbnn.constraints import Positive
from kbnn.errors import UsageError, unknown
from kbnn.quantizers import KernelQuantizer
from kbnn.quantizers.base import mean_magnitude

SCALES = ("mean_abs", "learned")
SCALE_INITIALIZERS = ("mean", "median")
# The signs that Larq makes of a name.
SIGNS = ("approx_sign", "magnitude_aware_sign", "ste_sign", "swish_sign")


class Binarized(tf.keras.layers.Layer):
    """Comes before a Larq layer: binarizes its latent kernel in float32 and scales its output.

    The kernel is binarized before it is cast to the compute dtype, so that mixed precision cannot round a small
    weight to zero and change its sign. `alpha` is the learned scale, one positive value per output channel.
    """

    def __init__(
        self,
        *args: Any,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        scale: str | None = None,
        scale_initializer: str | float = "mean",
        scale_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or type(self).__name__
        input_quantizer = _named(f"input_quantizer of {name}", input_quantizer)
        super().__init__(*args, input_quantizer=input_quantizer, **kwargs)
        # Keras would refuse an input of too few axes before `build` does, and in its own words.
        self.input_spec = None
        # Set here, not by Larq: it warns of any binary kernel without a constraint, which some methods want.
        self.kernel_quantizer = lq.quantizers.get_kernel_quantizer(
            _named(f"kernel_quantizer of {name}", kernel_quantizer)
        )
        self.scale = scale
        self.scale_initializer = scale_initializer
        self.scale_regularizer = tf.keras.regularizers.get(scale_regularizer)
        self._check_arguments()

    def _check_arguments(self) -> None:
        if isinstance(self.input_quantizer, KernelQuantizer):
            raise UsageError(
                f"{self.name}: received input_quantizer={type(self.input_quantizer).__name__}, which binarizes "
                f"kernels; pass it as kernel_quantizer"
            )
        if self.scale is not None and self.scale not in SCALES:
            raise unknown(f"scale of {self.name}", str(self.scale), SCALES)
        if self.scale_regularizer is not None and self.scale != "learned":
            raise UsageError(f"{self.name}: scale_regularizer needs scale='learned', received scale={self.scale!r}")
        if not isinstance(self.scale_initializer, numbers.Real):
            if self.scale_initializer not in SCALE_INITIALIZERS:
                raise unknown(f"scale_initializer of {self.name}", str(self.scale_initializer), SCALE_INITIALIZERS)
        elif self.scale_initializer <= 0:
            raise UsageError(f"{self.name}: scale_initializer must be positive, received {self.scale_initializer}")

    def add_weight(self, name: str | None = None, **kwargs: Any) -> tf.Variable:
        if name in ("kernel", "alpha"):
            kwargs["experimental_autocast"] = False
        return super().add_weight(name=name, **kwargs)

    def build(self, input_shape: tf.TensorShape) -> None:
        super().build(input_shape)
        # Built here, not when first called, so that their parameters exist whenever the layer's do.
        self._build_quantizer(self.input_quantizer, input_shape)
        self._build_quantizer(self.kernel_quantizer, self.kernel.shape)
        if isinstance(self.kernel_regularizer, regularizers.MedianLoss):
            self.kernel_regularizer.attach(self)
        self.alpha = None
        if self.scale == "learned":
            self.alpha = self.add_weight(
                name="alpha", shape=self.kernel.shape[-1:], initializer=self._initial_alpha, constraint=Positive()
            )
        if self.scale_regularizer is not None:
            self.add_loss(self._scale_penalty)

    def _build_quantizer(self, quantizer: Any, shape: tf.TensorShape) -> None:
        if isinstance(quantizer, tf.keras.layers.Layer) and not quantizer.built:
            with tf.name_scope(quantizer.name):
                quantizer.build(shape)

    def _initial_alpha(self, shape: tf.TensorShape, dtype: tf.DType | None = None) -> tf.Tensor:
        if isinstance(self.scale_initializer, numbers.Real):
            return tf.fill(shape, tf.cast(self.scale_initializer, dtype))
        kernel = tf.convert_to_tensor(self.latent_kernel)
        statistic = mean_magnitude if self.scale_initializer == "mean" else _median_magnitude
        # A filter of zeros has no magnitude: its scale starts at the constraint's bound.
        return Positive()(tf.cast(statistic(kernel), dtype))

    def restart_scale(self) -> None:
        """Sets a learned scale from the kernel as it is now, as when the layer was built: after a kernel was loaded."""
        if self.alpha is not None:
            self.alpha.assign(self._initial_alpha(self.alpha.shape, self.alpha.dtype))

    def _scale_penalty(self) -> tf.Tensor:
        return self.scale_regularizer(tf.convert_to_tensor(self.latent_kernel), tf.convert_to_tensor(self.alpha))

    @property
    def latent_kernel(self) -> tf.Variable:
        """The trained real-valued kernel, in float32."""
        return getattr(self.kernel, "latent_variable", self.kernel)

    def binarized_kernel(self) -> tf.Tensor:
        """The kernel that the layer multiplies with, in float32: what the kernel quantizer makes of the latent one."""
        latent = tf.convert_to_tensor(self.latent_kernel)
        return _quantize(self.kernel_quantizer, latent)

    def output_scale(self) -> tf.Tensor | None:
        """What multiplies the output, per channel, in float32; None without a scale."""
        if self.scale == "learned":
            return tf.convert_to_tensor(self.alpha)
        if self.scale == "mean_abs":
            return tf.stop_gradient(mean_magnitude(tf.convert_to_tensor(self.latent_kernel)))
        return None

    def _binarized_input(self, inputs: tf.Tensor) -> tf.Tensor:
        return _quantize(self.input_quantizer, inputs)

    def _finish(self, outputs: tf.Tensor, scale: tf.Tensor | None) -> tf.Tensor:
        """Scale, bias and activation of the accumulated products."""
        if scale is not None:
            outputs = outputs * tf.cast(scale, outputs.dtype)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": self.scale,
            "scale_initializer": self.scale_initializer,
            "scale_regularizer": tf.keras.regularizers.serialize(self.scale_regularizer),
        }


def _named(argument: str, quantizer: Any) -> Any:
    """The quantizer; of a name, what Larq makes of it."""
    if not isinstance(quantizer, str):
        return quantizer
    try:
        return lq.quantizers.get(quantizer)
    except ValueError:
        raise unknown(argument, quantizer, SIGNS) from None


def _quantize(quantizer: Any, x: tf.Tensor) -> tf.Tensor:
    if quantizer is None:
        return x
    # Called past Keras, which would cast to the quantizer's own dtype policy first.
    return quantizer.call(x) if isinstance(quantizer, tf.keras.layers.Layer) else quantizer(x)


def _median_magnitude(w: tf.Tensor) -> tf.Tensor:
    """median(abs(W)) per filter, by sorting: it is taken once, when the layer is built."""
    ordered = tf.sort(tf.reshape(tf.abs(w), [-1, w.shape[-1]]), axis=0)
    n = ordered.shape[0]
    return ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2
