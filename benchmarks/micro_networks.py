"""The int8 files that micro.py measures: networks and layers with random weights and the batch statistics of images.

Importing this module imports TensorFlow, which micro.py needs only for files that it does not have yet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

import kbnn
from kbnn import datasets
from kbnn.converters import Description
from kbnn.converters.conversion import with_limits
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, with_passes
from kbnn.converters.tflite.building import build
from kbnn.precision import in_float32
from kbnn.training.run import Run

if TYPE_CHECKING:
    from micro import Layer, Network

_CALIBRATION_IMAGES = 128


def data(side: int) -> Any:
    """CIFAR-10 at an image size."""
    transform = datasets.Transform(resize=side, size=side) if side != 32 else None
    return datasets.load("cifar10", **({"transform": transform} if transform else {}))


def network_file(name: str, network: "Network", run: str | None) -> bytes:
    """The int8 file of a network of the registry, or of a trained run."""
    images = data(network.side)
    calibration = images.calibration(_CALIBRATION_IMAGES)
    model = Run.open(Path(run)).model() if run else _random(network, calibration)
    return _converted(model, calibration, Description.of(images, model=name))


def layer_file(layer: "Layer") -> bytes:
    """The int8 file of a single layer."""
    shape = (layer.side, layer.side, layer.channels)
    image = tf.keras.Input(shape, name="image")
    arguments: dict[str, Any] = {
        "filters": layer.filters,
        "kernel_size": layer.kernel_size,
        "padding": "same",
        "use_bias": False,
    }
    convolution: Callable[..., Any] = tf.keras.layers.Conv2D
    if layer.is_binary:
        convolution = kbnn.layers.BinaryConv2D
        arguments |= {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    if layer.is_depthwise:
        convolution = tf.keras.layers.DepthwiseConv2D
        del arguments["filters"]
    tf.keras.utils.set_random_seed(0)
    x = tf.keras.layers.BatchNormalization(name="bn")(convolution(name="conv", **arguments)(image))
    model = tf.keras.Model(image, x, name="layer")
    images = np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)
    _adapt(model, images)
    return _converted(model, images, Description("layer"))


def _converted(model: tf.keras.Model, calibration: np.ndarray, description: Description) -> bytes:
    """What `convert` writes, without comparing it with Keras: int8 may change the classes of a random network."""
    keras = Reference(in_float32(model))
    options = with_passes(Options(device="microcontroller"), in_int8=True)
    return build(keras, with_limits(options, keras, calibration), description)[0].data


def _random(network: "Network", images: np.ndarray) -> tf.keras.Model:
    """Random weights, with the batch statistics of real images."""
    tf.keras.utils.set_random_seed(0)
    shape = (network.side, network.side, 3)
    model = kbnn.models.build(network.model, network.method, input_shape=shape, classes=10, **network.options)
    _adapt(model, images)
    return model


def _adapt(model: tf.keras.Model, images: np.ndarray) -> None:
    """Moves the batch statistics to those of images."""
    for _ in range(40):
        model(images, training=True)
