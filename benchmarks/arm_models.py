"""The TensorFlow Lite files that arm_costs.py counts: single operators, and whole networks in each form."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import kbnn
from kbnn.converters.conversion import with_limits
from kbnn.converters.forms import ORDINARY
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, with_passes
from kbnn.converters.passes.forms import with_forms
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.building import build
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.metadata import Description

_RANDOM = np.random.default_rng(0)
_SLOPES = _RANDOM.uniform(0.1, 0.5, (1, 1, 64)).astype(np.float32)


def model(function: Callable[..., tf.Tensor], *shapes: tuple[int, ...], in_int8: bool = False) -> File:
    """A function of one sample as a plain TensorFlow Lite file."""
    module = tf.Module()
    specs = [tf.TensorSpec([1, *shape], tf.float32, name=f"x{k}") for k, shape in enumerate(shapes)]
    module.call = tf.function(lambda *inputs: function(*inputs), autograph=False).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call], module)
    if in_int8:
        samples = [[_RANDOM.normal(size=(1, *shape)).astype(np.float32) for shape in shapes] for _ in range(4)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return flatbuffer.parse(converter.convert())


def named(file: File) -> File:
    """The file with the name that kbnn's files give the kernel of a layer called "layer"."""
    found = flatbuffer.tree(file.data)
    found.subgraphs[0].tensors[file.operators[-1].inputs[1].index].name = b"layer/kernel"
    return flatbuffer.parse(flatbuffer.pack(found))


def _normal(*shape: int) -> np.ndarray:
    return _RANDOM.normal(size=shape).astype(np.float32)


def convolution(
    size: int, channels: int, filters: int, kernel: int, strides: int = 1, in_int8: bool = False, equal: bool = False
) -> File:
    """A convolution with bias, on square images; if `equal`, the largest weight of every filter is 1."""
    weights, bias = _normal(kernel, kernel, channels, filters), _normal(filters)
    if equal:
        weights = weights / np.abs(weights).max((0, 1, 2))
    shape = (size, size, channels)
    return model(lambda x: tf.nn.bias_add(tf.nn.conv2d(x, weights, strides, "SAME"), bias), shape, in_int8=in_int8)


def depthwise(size: int, channels: int, in_int8: bool = False) -> File:
    """A depthwise 3x3 convolution with bias."""
    weights, bias = _normal(3, 3, channels, 1), _normal(channels)

    def call(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, weights, [1, 1, 1, 1], "SAME"), bias)

    return model(call, (size, size, channels), in_int8=in_int8)


def dense(inputs: int, units: int, in_int8: bool = False) -> File:
    """A dense layer with bias."""
    weights, bias = _normal(inputs, units), _normal(units)
    return model(lambda x: tf.matmul(x, weights) + bias, (inputs,), in_int8=in_int8)


def quicknet_stem(size: int, filters: int) -> File:
    """The stem of `kbnn.models.parts.quicknet_stem` with its normalizations folded."""
    inner = filters // 4
    first, second, third = _normal(3, 3, 3, inner), _normal(3, 3, inner, 1), _normal(1, 1, inner, filters)
    biases = [_normal(inner), _normal(inner), _normal(filters)]

    def call(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, first, 2, "SAME"), biases[0]))
        x = tf.nn.bias_add(tf.nn.depthwise_conv2d(x, second, [1, 2, 2, 1], "SAME"), biases[1])
        return tf.nn.bias_add(tf.nn.conv2d(x, third, 1, "SAME"), biases[2])

    return model(call, (size, size, 3))


def narrow_stem(size: int, filters: int) -> File:
    """The stem of `kbnn.models.parts.narrow_stem` with its normalizations folded."""
    inner = filters * 3 // 8
    first, second = _normal(3, 3, 3, inner), _normal(1, 1, inner, filters)
    biases = [_normal(inner), _normal(filters)]

    def call(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.max_pool2d(tf.nn.bias_add(tf.nn.conv2d(x, first, 2, "SAME"), biases[0]), 3, 2, "SAME")
        return tf.nn.bias_add(tf.nn.conv2d(x, second, 1, "SAME"), biases[1])

    return model(call, (size, size, 3))


def shuffle_by_transpose(x: tf.Tensor) -> tf.Tensor:
    _, height, width, channels = x.shape
    y = tf.transpose(tf.reshape(x, [1, height, width, 2, channels // 2]), [0, 1, 2, 4, 3])
    return tf.reshape(y, [1, height, width, channels])


def shuffle_of_quarters(x: tf.Tensor) -> tf.Tensor:
    first, second, third, fourth = tf.split(x, 4, -1)
    return tf.concat([first, third, second, fourth], -1)


def shuffle_of_eighths(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `shuffles_in_pieces` moves them, into one value for each group."""
    pieces = tf.split(x, 8, -1)
    order = np.arange(8).reshape(2, 2, 2).transpose(1, 2, 0).reshape(2, 4)
    first, second = (tf.concat([pieces[k] for k in group], -1) for group in order)
    return first, second


def _transposed_back(x: tf.Tensor) -> tf.Tensor:
    """The next shuffle, from the order that `shuffle_of_eighths` leaves."""
    _, height, width, channels = x.shape
    y = tf.reshape(x, [1, height * width, 2, 2, 2, channels // 8])
    return tf.reshape(tf.transpose(y, [0, 1, 3, 5, 4, 2]), [1, height, width, channels])


def _padded_addition(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return x + tf.pad(y, [(0, 0), (0, 0), (0, 0), (0, y.shape[-1])])


def _addition_to_half(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    first, second = tf.split(x, 2, -1)
    return tf.concat([first + y, second], -1)


def prelu(x: tf.Tensor) -> tf.Tensor:
    """As Keras writes it, which the converter turns into one operator."""
    return tf.nn.relu(x) + -tf.constant(_SLOPES) * tf.nn.relu(-x)


def prelu_by_maximum(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(x, x * _SLOPES.ravel())


def prelu_by_minimum(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(x) + tf.minimum(x, 0.0) * _SLOPES.ravel()


def _quantized(x: tf.Tensor) -> tf.Tensor:
    """QUANTIZE and DEQUANTIZE between whole tensors."""
    return tf.quantization.fake_quant_with_min_max_args(x, -4.0, 4.0)


_FUNCTIONS: dict[str, Callable[..., tf.Tensor]] = {
    "ADD": tf.add,
    "SUB": tf.subtract,
    "MUL": tf.multiply,
    "DIV": tf.divide,
    "MAXIMUM": tf.maximum,
    "MINIMUM": tf.minimum,
    "SQUARED_DIFFERENCE": tf.math.squared_difference,
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "LEAKY_RELU": tf.nn.leaky_relu,
    "RSQRT": tf.math.rsqrt,
    "SQUARE": tf.square,
    "ABS": tf.abs,
    "LOGISTIC": tf.sigmoid,
    "TANH": tf.tanh,
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "QUANTIZE and DEQUANTIZE": _quantized,
    "STRIDED_SLICE": lambda x: x[:, :, ::2],
    "GATHER": lambda x: tf.gather(x, np.arange(x.shape[-1]).reshape(2, -1).T.ravel(), axis=3),
    "PAD and ADD": _padded_addition,
    "SPLIT and ADD": _addition_to_half,
    "TRANSPOSE back": _transposed_back,
    "SPLIT": lambda x: tf.split(x, 2, -1),
    "halving": lambda x: tf.image.resize(x, (x.shape[1] // 2, x.shape[2] // 2), "bilinear"),
    "TRANSPOSE_CONV": lambda x: tf.nn.conv2d_transpose(x, _WEIGHTS_2D, [1, 28, 28, 64], 2, "SAME"),
    "CONV_3D": lambda x: tf.nn.conv3d(x, _WEIGHTS_3D, [1, 1, 1, 1, 1], "SAME"),
    "RESIZE_NEAREST_NEIGHBOR": lambda x: tf.image.resize(x, (56, 56), "nearest"),
    "RESIZE_BILINEAR": lambda x: tf.image.resize(x, (56, 56), "bilinear"),
}
_WEIGHTS_2D, _WEIGHTS_3D = _normal(3, 3, 64, 64), _normal(3, 3, 3, 16, 16)


def on(name: str) -> Callable[..., tf.Tensor]:
    """A function that the converter turns into the operator with this name."""
    return _FUNCTIONS[name]


# ---- whole networks --------------------------------------------------------------------------------------------------

_IMAGENET = {"input_shape": (224, 224, 3), "classes": 1000}
# Network -> arguments of `build`; the last ones have cheaper stems.
NETWORKS: dict[str, dict[str, Any]] = {
    "bireal18": {"name": "bireal18", **_IMAGENET},
    "react18": {"name": "react18", "method": "react", **_IMAGENET},
    "presb18": {"name": "presb18", **_IMAGENET},
    "resnet20": {"name": "resnet20"},
    "bireal18, quicknet stem": {"name": "bireal18", "stem": "quicknet", **_IMAGENET},
    "bireal18, narrow stem": {"name": "bireal18", "stem": "narrow", **_IMAGENET},
    "bireal18, patches stem": {"name": "bireal18", "stem": "patches", **_IMAGENET},
    "react18, quicknet stem": {"name": "react18", "method": "react", "stem": "quicknet", **_IMAGENET},
}


def _portable_int8(device: str) -> dict[str, Any]:
    return {"kernel": "portable", "device": device, "weights": "int8"}


# Passes that were not applied to the files counted elsewhere.
_LATER = ("halve_by_resizing", "scales_after_pools")
# Form -> options of the conversion; `changed` replaces some of the options that the device implies.
_FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "bireal18": {
        "plain": {"device": "generic"},
        "with --device pi4": {"device": "pi4"},
        "with --weights int8": {"weights": "int8"},
        "all weights in 8 bits": {"weights": "int8", "changed": {"in_16_bits": (), "in_32_bits": ()}},
        "GATHER stem": {"device": "pi4", "without": _LATER},
        "hybrid stem": {
            "weights": "int8",
            "device": "pi4",
            "without": _LATER,
            "changed": {"hybrid": ("stem_conv",)},
        },
        "hybrid stem and shortcuts": {"weights": "int8", "device": "pi5", "without": _LATER},
        "with --weights int8 --device pi4": {"weights": "int8", "device": "pi4"},
        "with --weights int8 --device pi5": {"weights": "int8", "device": "pi5"},
        "int8 activations": {"int8": True},
    },
    "react18": {
        "plain": {},
        "with --weights int8": {"weights": "int8"},
        "GATHER stem": {"device": "pi4", "without": _LATER},
        "with --device pi4": {"device": "pi4"},
        "with --weights int8 --device pi4": {"weights": "int8", "device": "pi4"},
        "with --weights int8 --device pi5": {"weights": "int8", "device": "pi5"},
        "int8 activations": {"int8": True},
        "int8 activations, PRELU kept": {"int8": True, "without": ("prelu_as_maximum", "prelu_of_any_slope")},
    },
    "presb18": {
        "grouped": {"kernel": "grouped"},
        "portable": {"kernel": "portable"},
        "portable, GATHER stem": {
            "kernel": "portable",
            "device": "pi4",
            "without": ("shuffles_in_pieces", "split_before_add", *_LATER),
        },
        "with --kernel portable --device pi4": {"kernel": "portable", "device": "pi4"},
        "with --weights int8 --kernel portable --device pi4": {
            "kernel": "portable",
            "device": "pi4",
            "weights": "int8",
        },
        "with --weights int8 --kernel portable --device pi5": {
            "kernel": "portable",
            "device": "pi5",
            "weights": "int8",
        },
    },
    "resnet20": {"plain": {}, "with --weights int8": {"weights": "int8"}, "int8 activations": {"int8": True}},
    **{
        f"bireal18, {stem} stem": {
            "plain": {},
            "with --device pi4": {"device": "pi4"},
            "with --weights int8 --device pi4": {"weights": "int8", "device": "pi4"},
            "with --weights int8 --device pi5": {"weights": "int8", "device": "pi5"},
        }
        for stem in ("quicknet", "narrow", "patches")
    },
    "react18, quicknet stem": {"plain": {}},
}


def deployments(network: str, only: Sequence[str] = ()) -> Iterator[tuple[str, File]]:
    """Each form of a network with random weights, or those of some names, and its unverified file."""
    arguments = dict(NETWORKS[network])
    tf.keras.utils.set_random_seed(0)
    keras_model = kbnn.models.build(arguments.pop("name"), **arguments)
    kbnn.testing.settle(keras_model)
    for form, options in _FORMS[network].items():
        if not only or form in only:
            yield form, deployed(keras_model, **options)
    if network == "bireal18" and not only:
        yield from _twins(keras_model)


def _twins(keras_model: tf.keras.Model) -> Iterator[tuple[str, File]]:
    images = _normal(2, *keras_model.input_shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "twin.tflite"
        for name, twin in zip(("ordinary float twin", "ordinary int8 twin"), ORDINARY, strict=True):
            twin.write(keras_model, path, images, images)
            yield name, flatbuffer.read(path)


def deployed(
    keras_model: tf.keras.Model,
    int8: bool = False,
    without: tuple[str, ...] = (),
    changed: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> File:
    """The file that `convert` would write, without the comparison with Keras."""
    keras = Reference(keras_model)
    options = with_passes(with_forms(Options(**arguments), lift(keras)), in_int8=int8)
    options = replace(options, passes=tuple(name for name in options.passes if name not in without))
    options = replace(options, **(changed or {}))
    if int8:
        options = with_limits(options, keras, _normal(1, *keras_model.input_shape[1:]))
    return build(keras, options, Description().of_model(keras_model.name))[0]


def without_lce(file: File) -> File:
    """The file without LCE's operators, whose outputs become inputs of the file, and whose inputs become outputs."""
    found = flatbuffer.tree(file.data)
    graph = found.subgraphs[0]
    removed = [operator for operator in file.operators if operator.name.startswith("Lce")]
    kept = [operator for operator in file.operators if not operator.name.startswith("Lce")]
    computed = {tensor.index for operator in removed for tensor in operator.outputs}
    read = {tensor.index for operator in kept for tensor in operator.operands}
    wanted = {tensor.index for operator in removed for tensor in operator.operands if tensor.data is None}
    made = {tensor.index for operator in kept for tensor in operator.outputs}
    graph.inputs = np.array([*(i for i in graph.inputs if i in read), *sorted(computed & read)], np.int32)
    graph.outputs = np.array([*graph.outputs, *sorted((wanted & made) - set(map(int, graph.outputs)))], np.int32)
    graph.operators = [graph.operators[operator.index] for operator in kept]
    used = sorted({operator.opcodeIndex for operator in graph.operators})
    for operator in graph.operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    found.operatorCodes = [found.operatorCodes[k] for k in used]
    found.signatureDefs = None
    return flatbuffer.parse(flatbuffer.pack(found))
