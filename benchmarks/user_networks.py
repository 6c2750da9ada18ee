"""Shows which networks of users `convert` accepts, and why it rejects others.

    python benchmarks/user_networks.py            prints the table
    python benchmarks/user_networks.py --docs     writes it into docs/deployment.md

Each function builds a small network of a kind that appears in public issues of larq, LCE, Keras and TensorFlow.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import kbnn  # isort: skip  (first: it selects tf.keras 2)
import larq as lq
import numpy as np
import record
import tensorflow as tf

from kbnn.converters import ConversionError, convert
from kbnn.errors import KbnnError

layers = tf.keras.layers
Build = Callable[[], tf.keras.Model]

DOCS = Path(__file__).parents[1] / "docs" / "deployment.md"
BINARY = {
    "padding": "same",
    "pad_values": 1.0,
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
}
KINDS: dict[str, Build] = {}


def kind(title: str) -> Callable[[Build], Build]:
    """Registers a network under a title."""

    def register(build: Build) -> Build:
        KINDS[title] = build
        return build

    return register


def image(channels: int = 32, **options: object) -> tf.Tensor:
    return layers.Input((8, 8, channels), name="image", **options)


def binary(x: tf.Tensor, name: str, **changes: object) -> tf.Tensor:
    """A binary convolution and its batch normalization."""
    x = lq.layers.QuantConv2D(32, 3, name=name, **{**BINARY, **changes})(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def classifier(inputs: tf.Tensor, x: tf.Tensor) -> tf.keras.Model:
    return tf.keras.Model(inputs, layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x)))


@kind("arithmetic with constants between layers")
def arithmetic() -> tf.keras.Model:
    inputs = image()
    x = binary(inputs, "first")
    x = 1.0 - (x + 0.1 * binary(x, "second"))
    x = tf.where(x > 0, tf.maximum(0.0, x), 0.1 * x)
    return classifier(inputs, binary(x, "third"))


@kind("`tf.einsum` with a constant")
def einsum() -> tf.keras.Model:
    inputs = image()
    kernel = tf.constant(np.random.default_rng(0).normal(size=(32, 16)), tf.float32)
    return classifier(inputs, binary(tf.einsum("bhwc,cd->bhwd", binary(inputs, "first"), kernel), "second"))


@kind("arrays among a layer's inputs")
def arrays() -> tf.keras.Model:
    inputs = image()
    return classifier(inputs, layers.Add()([binary(inputs, "first"), np.ones((1, 8, 8, 32), np.float32)]))


@kind("choices and parts: `tf.where`, `tf.concat`, `tf.pad`, slices")
def choices() -> tf.keras.Model:
    inputs = image()
    x = binary(inputs, "first")
    x = tf.where(x > 0.5, 1.0, tf.concat([x, tf.zeros_like(x)], -1)[..., ::2])
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])[:, 1:-1, 1:-1]
    return classifier(inputs, binary(tf.transpose(x, [0, 2, 1, 3]), "second"))


@kind("float64 input")
def float64() -> tf.keras.Model:
    inputs = image(dtype="float64")
    return classifier(inputs, binary(inputs, "first"))


@kind("float16 input")
def float16() -> tf.keras.Model:
    inputs = image(dtype="float16")
    return classifier(inputs, binary(inputs, "first"))


@kind("bfloat16 input")
def bfloat16() -> tf.keras.Model:
    inputs = image(dtype="bfloat16")
    return classifier(inputs, binary(inputs, "first"))


class Subclassed(tf.keras.Model):
    """Computes between its layers."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.first = lq.layers.QuantConv2D(32, 3, name="first", **BINARY)
        self.pool = layers.GlobalAveragePooling2D()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.pool(0.5 * self.first(2.0 * inputs + 1.0))


@kind("subclassed model, first called on float64")
def subclassed() -> tf.keras.Model:
    model = Subclassed()
    model(np.zeros((1, 8, 8, 32)))
    return model


class Traced(Subclassed):
    """Compiles its own `call`."""

    @tf.function
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return super().call(inputs)


class Branching(Subclassed):
    """Calls its layers in one of two branches."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        sign = tf.reduce_mean(inputs) > 0
        return tf.cond(sign, lambda: super(Branching, self).call(inputs), lambda: super(Branching, self).call(-inputs))


class WithAnchors(Subclassed):
    """Also returns a constant."""

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return super().call(inputs), tf.constant([[1.0, 2.0]])


def called(model: tf.keras.Model) -> tf.keras.Model:
    model(np.zeros((2, 8, 8, 32), np.float32))
    return model


@kind("subclassed model with `@tf.function` on its `call`")
def traced() -> tf.keras.Model:
    return called(Traced())


@kind("binary layers within `tf.cond`")
def branching() -> tf.keras.Model:
    return called(Branching(name="branching"))


@kind("an output that does not depend on the image")
def anchors() -> tf.keras.Model:
    return called(WithAnchors(name="anchors"))


@kind("class numbers and booleans as outputs")
def decisions() -> tf.keras.Model:
    inputs = image()
    logits = layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(binary(inputs, "first")))
    return tf.keras.Model(inputs, [tf.argmax(logits, -1), logits > 0.0])


@kind("`gelu` among binary layers")
def gelu() -> tf.keras.Model:
    inputs = image()
    return classifier(inputs, binary(layers.Activation("gelu", name="gelu")(binary(inputs, "first")), "second"))


@kind("`PReLU(shared_axes=[1, 2])` after `Conv3D`")
def volume() -> tf.keras.Model:
    inputs = layers.Input((4, 8, 8, 8), name="volume")
    x = layers.PReLU(shared_axes=[1, 2], name="slopes")(layers.Conv3D(8, 3, padding="same")(inputs))
    return classifier(inputs, binary(layers.Reshape((16, 16, 8))(x), "first"))


@kind("`UpSampling2D(interpolation='bilinear')`, untrained")
def upsampled() -> tf.keras.Model:
    inputs = image()
    x = layers.UpSampling2D(interpolation="bilinear")(binary(inputs, "first"))
    return classifier(inputs, binary(x, "second"))


@kind("Sequential model without an input shape, called once")
def called_once() -> tf.keras.Model:
    model = tf.keras.Sequential([lq.layers.QuantConv2D(32, 3, **BINARY), layers.GlobalAveragePooling2D()])
    model(np.zeros((1, 8, 8, 32), np.float32))
    return model


@kind("`TimeDistributed` model with a binary layer")
def time_distributed() -> tf.keras.Model:
    inner = image()
    frames = layers.Input((3, 8, 8, 32), name="frames")
    features = layers.TimeDistributed(classifier(inner, binary(inner, "first")))(frames)
    return tf.keras.Model(frames, layers.Dense(5)(layers.Flatten()(features)))


@kind("one tensor as two outputs")
def twice() -> tf.keras.Model:
    model = called_once()
    inputs = image()
    outputs = model(inputs)
    return tf.keras.Model(inputs, [outputs, outputs])


@kind("one layer used twice")
def shared() -> tf.keras.Model:
    inputs, layer = image(), lq.layers.QuantConv2D(32, 3, name="shared", **BINARY)
    return classifier(inputs, layer(layer(inputs)))


@kind("siamese branches")
def siamese() -> tf.keras.Model:
    left, right = (layers.Input((8, 8, 32), name=name) for name in ("left", "right"))
    layer = lq.layers.QuantConv2D(32, 3, name="shared", **BINARY)
    return classifier([left, right], layers.Subtract()([layer(left), layer(right)]))


@kind("layers with equal kernels")
def equal_kernels() -> tf.keras.Model:
    inputs = image()
    ones = {"kernel_initializer": "ones"}
    return classifier(inputs, binary(binary(inputs, "first", **ones), "second", **ones))


@kind("branches with equal kernels")
def equal_branches() -> tf.keras.Model:
    inputs = image()
    ones = {"kernel_initializer": "ones", **BINARY}
    branches = [lq.layers.QuantConv2D(32, 3, name=name, **ones)(inputs) for name in ("left", "right")]
    return classifier(inputs, layers.Concatenate()(branches))


@kind("names over 50 characters")
def long_names() -> tf.keras.Model:
    inputs = image()
    name = "a_layer_whose_name_is_so_long_that_no_converter_keeps_all_of_it"
    return classifier(inputs, binary(binary(inputs, f"{name}_1"), f"{name}_2"))


@kind("real-valued `Conv1D(dilation_rate=2)`")
def dilated() -> tf.keras.Model:
    inputs = image()
    x = layers.Reshape((64, 32))(binary(inputs, "first"))
    x = layers.Conv1D(32, 3, dilation_rate=2, padding="same")(x)
    return classifier(inputs, binary(layers.Reshape((8, 8, 32))(x), "second"))


@kind("`tf.reshape` of the batch axis")
def reshaped() -> tf.keras.Model:
    frames = layers.Input((3, 8, 8, 32), name="frames")
    x = tf.reshape(binary(tf.reshape(frames, (-1, 8, 8, 32)), "first"), (-1, 3, 8, 8, 32))
    return tf.keras.Model(frames, layers.Dense(5)(tf.reduce_mean(x, [1, 2, 3])))


def behind_sign(sign: Callable[[tf.Tensor], tf.Tensor], padding: str = "same") -> tf.keras.Model:
    inputs = image()
    x = sign(layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(inputs)))
    changes = {"padding": padding, "pad_values": float(padding == "same")}
    return classifier(inputs, binary(x, "second", input_quantizer=None, **changes))


@kind("`SteSign()` as a layer")
def sign_layer() -> tf.keras.Model:
    return behind_sign(lq.quantizers.SteSign())


@kind("`Activation(lq.math.sign)`")
def sign_activation() -> tf.keras.Model:
    return behind_sign(layers.Activation(lq.math.sign))


@kind("`Lambda` sign")
def sign_lambda() -> tf.keras.Model:
    return behind_sign(layers.Lambda(lambda x: tf.where(x >= 0, 1.0, -1.0)))


@kind("sign in TensorFlow's functions")
def sign_functions() -> tf.keras.Model:
    return behind_sign(lambda x: tf.where(x >= 0, 1.0, -1.0))


@kind("`Activation('ste_sign')`")
def sign_by_name() -> tf.keras.Model:
    return behind_sign(layers.Activation("ste_sign"))


@kind("sign, then max-pooling")
def pooled_sign() -> tf.keras.Model:
    return behind_sign(lambda x: layers.MaxPooling2D(2)(lq.quantizers.SteSign()(x)))


@kind("sign, then `ZeroPadding2D`")
def padded_sign() -> tf.keras.Model:
    return behind_sign(lambda x: layers.ZeroPadding2D(1)(lq.quantizers.SteSign()(x)), "valid")


@kind("`tf.sign`, which is 0 at 0")
def three_signs() -> tf.keras.Model:
    return behind_sign(tf.sign)


@kind("`tf.where(x > 0, 1.0, -1.0)`, which is -1 at 0")
def strict_sign() -> tf.keras.Model:
    return behind_sign(lambda x: tf.where(x > 0, 1.0, -1.0))


@kind("`channels_first`")
def channels_first() -> tf.keras.Model:
    inputs = layers.Input((32, 8, 8), name="image")
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "data_format": "channels_first"}
    x = lq.layers.QuantConv2D(32, 3, name="first", **quantizers)(inputs)
    return tf.keras.Model(inputs, layers.GlobalAveragePooling2D(data_format="channels_first")(x))


@kind("`QuantConv1D`")
def one_dimension() -> tf.keras.Model:
    series = layers.Input((16, 32), name="series")
    x = layers.BatchNormalization()(lq.layers.QuantConv1D(32, 3, name="first", **BINARY)(series))
    x = lq.layers.QuantConv1D(32, 3, name="second", **{**BINARY, "padding": "valid"})(x)
    return tf.keras.Model(series, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


@kind("`QuantConv1D(padding='causal')`")
def causal() -> tf.keras.Model:
    series = layers.Input((16, 32), name="series")
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    x = lq.layers.QuantConv1D(32, 3, padding="causal", name="first", **quantizers)(series)
    return tf.keras.Model(series, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


@kind("binarized input of 1 channel, padded with zeros")
def one_channel() -> tf.keras.Model:
    inputs = image(1)
    return classifier(inputs, binary(inputs, "first", pad_values=0.0))


@kind("binarized input of 3 channels, padded with zeros")
def three_channels() -> tf.keras.Model:
    inputs = image(3)
    return classifier(inputs, binary(inputs, "first", pad_values=0.0))


@kind("`MultiHeadAttention` among binary layers")
def attention() -> tf.keras.Model:
    inputs = image()
    x = layers.Reshape((64, 32))(binary(inputs, "first"))
    x = layers.MultiHeadAttention(4, 32)(x, x)
    return classifier(inputs, binary(layers.Reshape((8, 8, 32))(x), "second"))


@kind("`QuantLocallyConnected2D`")
def locally_connected() -> tf.keras.Model:
    inputs = image()
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return classifier(
        inputs, lq.layers.QuantLocallyConnected2D(8, 3, implementation=2, name="local", **quantizers)(inputs)
    )


@kind("activations of 0 and 1 (`ste_heaviside`)")
def heaviside() -> tf.keras.Model:
    inputs = image()
    return classifier(inputs, binary(inputs, "first", input_quantizer="ste_heaviside"))


@kind("activations of 0 and 1 (`DoReFa(k_bit=1)`)")
def dorefa() -> tf.keras.Model:
    inputs = image()
    return classifier(inputs, binary(inputs, "first", input_quantizer=lq.quantizers.DoReFa(k_bit=1)))


@kind("Bop: `NoOp(precision=1)` with kernels of ±1")
def bop() -> tf.keras.Model:
    inputs = image()
    changes = {"kernel_quantizer": lq.quantizers.NoOp(precision=1), "kernel_constraint": None}
    model = classifier(inputs, binary(inputs, "first", **changes))
    kernel, *others = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([np.where(kernel >= 0, 1.0, -1.0), *others])
    return model


@kind("ternary activations (`SteTern`) after a binary layer")
def ternary() -> tf.keras.Model:
    inputs = image()
    return classifier(inputs, binary(binary(inputs, "first"), "ternary", input_quantizer="ste_tern"))


def recurrent(layer: tf.keras.layers.Layer) -> tf.keras.Model:
    inputs = image()
    return tf.keras.Model(inputs, layers.Dense(5)(layer(layers.Reshape((8, 256))(binary(inputs, "first")))))


@kind("GRU")
def gru() -> tf.keras.Model:
    return recurrent(layers.GRU(8, name="gru"))


@kind("GRU with `unroll=True`")
def unrolled_gru() -> tf.keras.Model:
    return recurrent(layers.GRU(8, unroll=True, name="gru"))


@kind("LSTM")
def lstm() -> tf.keras.Model:
    return recurrent(layers.LSTM(8, name="lstm"))


@kind("LSTM with `unroll=True`")
def unrolled_lstm() -> tf.keras.Model:
    return recurrent(layers.LSTM(8, unroll=True, name="lstm"))


@kind("integer input (`Embedding`), no images given")
def embedding() -> tf.keras.Model:
    tokens = layers.Input((16,), dtype="int32", name="tokens")
    return classifier(tokens, binary(layers.Reshape((4, 4, 32))(layers.Embedding(50, 32)(tokens)), "first"))


@kind("tokens as numbers (`Embedding`), no images given")
def numbers() -> tf.keras.Model:
    tokens = layers.Input((16,), name="tokens")
    x = binary(layers.Reshape((4, 4, 32))(layers.Embedding(50, 32)(tokens)), "first")
    return tf.keras.Model(tokens, layers.GlobalAveragePooling2D()(x), name="words")


def saved_in_scope(kernel_quantizer: str) -> tf.keras.Model:
    inputs = image()
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": kernel_quantizer}
    model = classifier(inputs, kbnn.layers.BinaryConv2D(32, 3, name="first", **quantizers)(inputs))
    with lq.context.quantized_scope(True):
        weights = model.get_weights()
    model.set_weights(weights)
    return model


@kind("saved inside Larq's `quantized_scope`, half-half kernels")
def half_half_in_scope() -> tf.keras.Model:
    return saved_in_scope("half_half")


@kind("saved inside Larq's `quantized_scope`, AdaBin's kernels")
def equalized_in_scope() -> tf.keras.Model:
    return saved_in_scope("equalized")


@kind("saved inside Larq's `quantized_scope`, kernels of signs")
def signs_in_scope() -> tf.keras.Model:
    return saved_in_scope("ste_sign")


@kind("Larq's tutorial network as it is built, untrained")
def tutorial() -> tf.keras.Model:
    quantizers = {key: BINARY[key] for key in ("input_quantizer", "kernel_quantizer", "kernel_constraint")}
    first = {key: value for key, value in quantizers.items() if key != "input_quantizer"}
    model = tf.keras.Sequential(
        [
            lq.layers.QuantConv2D(32, 3, use_bias=False, input_shape=(16, 16, 1), **first),
            layers.MaxPooling2D(2),
            layers.BatchNormalization(scale=False),
        ]
    )
    for filters in (64, 64):
        model.add(lq.layers.QuantConv2D(filters, 3, use_bias=False, padding="same", **quantizers))
        model.add(layers.BatchNormalization(scale=False))
    model.add(layers.Flatten())
    model.add(lq.layers.QuantDense(10, use_bias=False, **quantizers))
    model.add(layers.Activation("softmax"))
    return model


def result(build: Build, folder: Path) -> str:
    """`accepted`, or `refused: …` with a one-line reason."""
    tf.keras.utils.set_random_seed(0)
    try:
        artifact = convert(build(), folder / "model.tflite")
    except (ConversionError, KbnnError) as error:
        return f"refused: {error}".replace(str(folder / "model.tflite"), "model.tflite")
    assert artifact.parity.passed
    count = len(artifact.audit.binary_convolutions)
    return f"accepted, {count} binary convolution{'s' * (count > 1)}"


def table(folder: Path) -> str:
    rows = [f"| {title} | {result(build, folder)} |" for title, build in KINDS.items()]
    return "\n".join(["| network | `kbnn convert` |", "|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/deployment.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = table(Path(folder))
    print(found)
    if arguments.docs:
        DOCS.write_text(record.filled(DOCS.read_text(), "user_networks", found))


if __name__ == "__main__":
    main()
