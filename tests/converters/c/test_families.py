"""One network per family of the registry: its C code equals LCE's interpreter on its int8 file."""

import numpy as np
import pytest
import tensorflow as tf

import kbnn
from kbnn.converters.c import export
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.passes.int8 import calibrated, in_int8
from kbnn.converters.passes.pipeline import with_passes
from kbnn.converters.tflite.converter import lower
from kbnn.converters.verify.verification import inputs_by_name

# Two stages of one block each have every kind of block, with and without downsampling.
SHALLOW = {"blocks": (1, 1)}
FAMILIES = {
    "tiny": {"width": 0.25},
    "resnet20": {"width": 0.5, "blocks": 1},
    "react18": {"width": 0.125, **SHALLOW},
    "bireal18": {"width": 0.125, **SHALLOW},
    "plain18": {"width": 0.125, **SHALLOW},
    "vgg_small": {"width": 0.125},
    "dorefa_svhn": {"width": 0.25, "side": 40},
    "presb10": {"width": 0.25},
}


def int8_file(name, images, side=32, spread=0.0, **options):
    """The int8 file of a network with random weights and statistics of images, without comparison with Keras.

    `spread` is the deviation of the logarithms of batch normalization's scales, and of its offsets.
    """
    images = tf.image.resize(images, (side, side)).numpy()
    model = kbnn.models.build(name, input_shape=(side, side, 3), classes=10, **options)
    for _ in range(10 if "weights" not in options else 0):
        model(images[:16], training=True)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if spread and isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.gamma.assign(np.exp(spread * random.normal(size=layer.gamma.shape)))
            layer.beta.assign(spread * random.normal(size=layer.beta.shape))
    reference = Reference(model)
    graph = deploy(reference, with_passes(Options(device="microcontroller"), in_int8=True))
    limits = calibrated(graph, inputs_by_name(reference, images))
    return lower(in_int8(graph, limits), Options(limits=limits).to_json()), images


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_equal_the_interpreters(name, images, compiler):
    file, images = int8_file(name, images, **FAMILIES[name])
    network, _, program = compiler.network(file)
    levels, scores = export.int8_values(file, network, images)
    assert len(np.unique(scores, axis=0)) > 1
    np.testing.assert_array_equal(compiler.run(program, levels), scores)
