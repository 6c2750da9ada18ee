"""PresB-Net's blocks against NumPy, its variants and ablations, and AresB-Net."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, models, structure
from kbnn.errors import UsageError
from kbnn.layers import BinaryConv2D
from kbnn.models import build

SMALL = {"input_shape": (8, 8, 3), "classes": 3, "blocks": (1, 1, 1, 1), "width": 1 / 16}


def randomized(model: tf.keras.Model) -> tf.keras.Model:
    generator = np.random.default_rng(1)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name or "gamma" in weight.name else -0.5
        weight.assign(generator.uniform(low, 1.0, size=weight.shape))
    return model


@functools.cache
def default() -> tf.keras.Model:
    """PresB-Net as in the paper, shared by the tests that do not change it."""
    return build("presb10", **SMALL)


class Reference:
    """The block of the paper's figures 7 and 8 in float64, with the weights of a model."""

    def __init__(self, model: tf.keras.Model, name: str) -> None:
        self.model = model
        self.name = name

    def weights(self, layer: str) -> dict[str, np.ndarray]:
        outer, _, inner = layer.partition(".")
        found = self.model.get_layer(f"{self.name}_{outer}")
        found = getattr(found, inner) if inner else found
        return {weight.name.split("/")[-1].split(":")[0]: weight.numpy().astype(np.float64) for weight in found.weights}

    def block(self, x: np.ndarray, expand: bool) -> np.ndarray:
        y = self.half(self.half(x, 1, expand), 2, expand=False)
        if not expand:
            return y + x
        shortcut = self.convolution(np.where(pool(x) >= 0, 1.0, -1.0), "shortcut_conv", groups=1, strides=1)
        return y + self.batch_normalization(shortcut, "shortcut_bn")

    def half(self, x: np.ndarray, k: int, expand: bool) -> np.ndarray:
        channels = x.shape[-1]
        shuffled = np.stack([x[..., : channels // 2], x[..., channels // 2 :]], -1).reshape(x.shape)
        signs = np.where(shuffled + self.weights(f"shift{k}")["bias"] >= 0, 1.0, -1.0)
        y = self.convolution(signs, f"conv{k}", groups=2, strides=2 if expand else 1)
        y = self.biased_prelu(y, f"conv{k}_act")
        mean, variance = y.mean((1, 2, 3), keepdims=True), y.var((1, 2, 3), keepdims=True)
        y = self.biased_prelu((y - mean) / np.sqrt(variance + 1e-5), f"norm{k}.activation")
        y = self.batch_normalization(y, f"norm{k}.batch_normalization")
        if expand:
            y = np.concatenate([y + pool(shuffled), pool(shuffled)], -1)
        else:
            y = np.concatenate([y + shuffled[..., : channels // 2], shuffled[..., channels // 2 :]], -1)
        rprelu = self.weights(f"act{k}")
        u = y - rprelu["gamma"]
        return np.where(u > 0, u, rprelu["slope"] * u) + rprelu["zeta"]

    def convolution(self, signs: np.ndarray, layer: str, groups: int, strides: int) -> np.ndarray:
        kernel = self.weights(layer)["kernel"]
        kernel = np.abs(kernel).mean((0, 1, 2)) * np.where(kernel >= 0, 1.0, -1.0)
        size, filters = kernel.shape[0], kernel.shape[-1]
        height, width = signs.shape[1] // strides, signs.shape[2] // strides
        before, after = ((size - 1) // 2, size - 1) if strides == 1 else (0, size - 1)
        padded = np.pad(signs, [(0, 0), (before, after), (before, after), (0, 0)], constant_values=1.0)
        y = np.zeros((len(signs), height, width, filters))
        for group in range(groups):
            inputs = padded[..., group * kernel.shape[2] : (group + 1) * kernel.shape[2]]
            outputs = slice(group * filters // groups, (group + 1) * filters // groups)
            for i, j in np.ndindex(height, width):
                window = inputs[:, i * strides : i * strides + size, j * strides : j * strides + size]
                y[:, i, j, outputs] = np.tensordot(window, kernel[..., outputs], 3)
        return y

    def biased_prelu(self, x: np.ndarray, layer: str) -> np.ndarray:
        parameters = {name: np.repeat(value, x.shape[-1] // 2) for name, value in self.weights(layer).items()}
        u = x - parameters["gamma"]
        return np.where(u > 0, u, parameters["slope"] * u)

    def batch_normalization(self, x: np.ndarray, layer: str) -> np.ndarray:
        w = self.weights(layer)
        return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-5) * w["gamma"] + w["beta"]


def pool(x: np.ndarray) -> np.ndarray:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expand"), [("stage1_block1", False), ("stage2_block1", True)])
def test_blocks_equal_numpy(name: str, expand: bool):
    model = randomized(build("presb10", **SMALL))
    first = model.get_layer(f"{name}_shuffle1")
    part = tf.keras.Model(model.input, [first.input, model.get_layer(f"{name}_add").output])
    entered, left = part(np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32))
    expected = Reference(model, name).block(entered.numpy().astype(np.float64), expand)
    np.testing.assert_allclose(left, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def names(model: tf.keras.Model, prefix: str = "stage2_block1") -> dict[str, tf.keras.layers.Layer]:
    return {layer.name.removeprefix(f"{prefix}_"): layer for layer in model.layers if layer.name.startswith(prefix)}


@pytest.mark.slow
def test_depth_and_channels():
    model = build("presb10", input_shape=(32, 32, 3))
    grouped = [layer for layer in model.layers if isinstance(layer, BinaryConv2D) and layer.groups == 2]
    shortcuts = [layer for layer in model.layers if isinstance(layer, BinaryConv2D) and layer.groups == 1]
    assert len(grouped) == 8
    assert [sum(models.get(name).options()["blocks"]) for name in ("presb18", "presb34")] == [8, 16]
    assert [layer.kernel.shape.as_list() for layer in shortcuts] == [[1, 1, c, 2 * c] for c in (128, 256, 512)]
    ends = [model.get_layer(f"stage{stage}_block1_add").output_shape[1:] for stage in (1, 2, 3, 4)]
    assert ends == [(32, 32, 128), (16, 16, 256), (8, 8, 512), (4, 4, 1024)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({}, ["BiasedPReLU", "GroupNormalization", "BiasedPReLU", "BatchNormalization"]),
        ({"activations": ("none", "none")}, ["GroupNormalization", "BatchNormalization"]),
        ({"activations": ("biased_prelu", "none")}, ["BiasedPReLU", "GroupNormalization", "BatchNormalization"]),
        ({"layer_norm": "none"}, ["BiasedPReLU", "BiasedPReLU", "BatchNormalization"]),
        ({"batch_norm": False}, ["BiasedPReLU", "GroupNormalization", "BiasedPReLU"]),
        ({"activations": ("rprelu", "rprelu")}, ["RPReLU", "GroupNormalization", "RPReLU", "BatchNormalization"]),
        ({"activations": ("relu", "relu")}, ["ReLU", "GroupNormalization", "ReLU", "BatchNormalization"]),
    ],
    ids=["PresB-Net", "no bias", "bias only for LN", "without LN", "without BN", "RPReLU", "ReLU"],
)
def test_rows_of_table_5(options: dict, row: list[str]):
    model = build("presb10", **SMALL, **options) if options else default()
    for k in (1, 2):
        layer, chain = model.get_layer(f"stage2_block1_pad{k}"), []
        while not isinstance(layer, BinaryConv2D):
            layer = layer.inbound_nodes[0].parent_nodes[0].layer
            chain += reversed(parts_of(layer))
        assert chain[-2::-1] == row


def parts_of(layer: tf.keras.layers.Layer) -> list[str]:
    """The class of a layer, or the classes of the layers within it."""
    found = [layer]
    if isinstance(layer, layers.GroupAwareNormalization):
        found = [layer.layer_normalization, layer.activation, layer.batch_normalization]
    return [type(part).__name__ for part in found if part is not None]


@pytest.mark.slow
def test_the_authors_code_by_argument():
    code = build("presb10", **SMALL, layer_norm="group", block_shortcut="binary_kernel", output_norm=True)
    found = names(code)
    assert (found["norm1"].layer_normalization.groups, found["norm1"].layer_normalization.affine) == (2, True)
    assert found["shortcut_conv"].input_quantizer is None
    assert found["shortcut_conv"].kernel_quantizer is not None
    assert type(found["bn"]) is tf.keras.layers.BatchNormalization


@pytest.mark.slow
def test_the_paper_by_default():
    found = names(default())
    assert (found["norm1"].layer_normalization.groups, found["norm1"].layer_normalization.affine) == (1, False)
    assert found["shortcut_conv"].input_quantizer is not None
    assert (found["conv1_act"].groups, found["norm2"].activation.groups) == (2, 2)
    assert "bn" not in found


@pytest.mark.slow
def test_options_of_shortcut_activation_and_estimator():
    assert type(names(build("presb10", **SMALL, block_shortcut="real"))["shortcut_conv"]) is tf.keras.layers.Conv2D
    bare = names(build("presb10", **SMALL, block_shortcut="none"))
    assert "shortcut_conv" not in bare
    assert "add" not in bare
    assert names(build("presb10", **SMALL, prelu_scope="channel"))["conv1_act"].groups is None
    signs = [names(model)["conv1"].input_quantizer for model in (default(), build("presb10", **SMALL, estimator="ste"))]
    assert [type(sign).__name__ for sign in signs] == ["LeakySteSign", "SteSign"]


@pytest.mark.slow
def test_the_real_valued_twin_replaces_the_sign():
    twins = {kind: names(build("presb10", "float", **SMALL, twin_activation=kind)) for kind in ("none", "sign", "clip")}
    signs = {kind: twin["conv1"].input_quantizer for kind, twin in twins.items()}
    assert {kind: type(sign).__name__ for kind, sign in signs.items()} == {
        "none": "NoneType",
        "sign": "LeakySteSign",
        "clip": "NoneType",
    }
    assert ["conv1_clip" in twin for twin in twins.values()] == [False, False, True]
    assert all(twin["conv1"].kernel_quantizer is None for twin in twins.values())
    assert "conv1_relu" in names(build("presb10", "float+relu", **SMALL))


@pytest.mark.slow
def test_aresb_net_is_without_layer_normalization_biased_prelu_and_1x1_shortcuts():
    model = build("aresb10", **SMALL)
    kinds = {type(layer) for layer in model.layers}
    assert not kinds & {layers.GroupNormalization, layers.BiasedPReLU}
    assert {layers.ChannelShuffle, layers.ChannelShift, layers.RPReLU} <= kinds
    assert {layer.kernel_size for layer in structure.layers_of(model, layers.BinaryConv2D)} == {(3, 3)}


def test_react_is_refused_because_presb_has_its_parts():
    with pytest.raises(UsageError, match="presb10 cannot take method 'react': its shifts and RPReLUs are already part"):
        build("presb10", "react")


@pytest.mark.parametrize("option", ["activations", "layer_norm", "block_shortcut", "prelu_scope"])
def test_unknown_values_of_options_are_errors(option: str):
    with pytest.raises(UsageError, match=f"presb10: {option}: input should be"):
        build("presb10", **SMALL, **{option: ("a", "b") if option == "activations" else "a"})


def test_an_unknown_estimator_is_an_error():
    with pytest.raises(UsageError, match="presb10: estimator: unknown estimator: received 'lse_ste'; did you mean"):
        build("presb10", **SMALL, estimator="lse_ste")
