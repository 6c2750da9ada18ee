"""Observing layer calls: only in one thread, and without permanent changes."""

import threading

import numpy as np
import tensorflow as tf

from kbnn.layer_calls import watched
from kbnn.structure import reachable_layers


class Names:
    """Records the names of the called layers."""

    def __init__(self):
        self.seen = []

    def enter(self, layer, args, kwargs):
        self.seen.append(layer.name)
        return args, kwargs

    def leave(self, layer, outputs):
        return outputs


def network():
    image = tf.keras.Input((4,), name="image")
    inner = tf.keras.Sequential([tf.keras.layers.Dense(3, name="inside")], name="inner")
    return tf.keras.Model(image, tf.keras.layers.Dense(2, name="last")(inner(image)), name="outer")


def test_nested_layers_are_seen_in_order():
    model, names = network(), Names()
    with watched(reachable_layers(model), names):
        model(np.zeros((1, 4), np.float32))
    assert names.seen == ["outer", "inner", "inside", "last"]
    model(np.zeros((1, 4), np.float32))
    assert len(names.seen) == 4


def test_no_layer_is_left_changed():
    model = network()
    with watched(reachable_layers(model), Names()):
        assert "call" in model.get_layer("last").__dict__
    assert all("call" not in layer.__dict__ for layer in reachable_layers(model))


def test_two_threads_can_watch_the_same_model():
    model, here, there = network(), Names(), Names()
    images = np.zeros((1, 4), np.float32)

    def elsewhere():
        with watched([model.get_layer("last")], there):
            model(images)

    with watched([model.get_layer("inner")], here):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        model(images)
    assert (here.seen, there.seen) == (["inner"], ["last"])
    assert "call" not in model.get_layer("last").__dict__
