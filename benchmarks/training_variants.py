"""The networks of the training benchmarks: one architecture in kbnn's layers, in Larq's, and real-valued."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import kbnn

if TYPE_CHECKING:
    import tensorflow as tf

BATCHES = {"resnet20": 128, "bireal18": 64}


@dataclass(frozen=True)
class Variant:
    """A way to train an architecture."""

    layers: str
    policy: str

    def __str__(self) -> str:
        return f"{self.layers}, {self.policy}"

    def method(self) -> kbnn.methods.Method:
        """The method that creates the layers."""
        import plain_layers

        makers: dict[str, Callable[[], kbnn.methods.Method]] = {
            "larq": lambda: plain_layers.Larq("larq", "bireal"),
            "kbnn": lambda: kbnn.methods.get("bireal"),
            "linear": lambda: plain_layers.Linear("linear", "float"),
            "relu": lambda: plain_layers.ReLU("relu", "float"),
            "clip": lambda: kbnn.methods.get("float"),
        }
        return makers[self.layers]()


# The first one is the reference.
VARIANTS = (
    Variant("larq", "float32"),
    Variant("kbnn", "mixed_bfloat16"),
    Variant("linear", "mixed_bfloat16"),
    Variant("relu", "mixed_bfloat16"),
    Variant("clip", "mixed_bfloat16"),
    Variant("larq", "mixed_bfloat16"),
    Variant("kbnn", "float32"),
)


def use_cores(cores: Sequence[int]) -> None:
    """Restricts this process to some cores, and TensorFlow to as many threads; call it before importing TensorFlow."""
    os.sched_setaffinity(0, cores)
    import tensorflow as tf

    logging.getLogger("larq").setLevel(logging.ERROR)
    tf.get_logger().setLevel(logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(len(cores))
    tf.config.threading.set_inter_op_parallelism_threads(len(cores))


def compiled_model(network: str, variant: Variant, steps_per_execution: int) -> "tf.keras.Model":
    """A 10-class network for 32x32 images with SGD, momentum 0.9."""
    import tensorflow as tf

    from kbnn.precision import precision

    with precision(variant.policy):
        model = kbnn.models.build(network, method=variant.method(), input_shape=(32, 32, 3), classes=10)
    model.compile(
        tf.keras.optimizers.legacy.SGD(0.01, momentum=0.9),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def constant_data(batch: int) -> "tf.data.Dataset":
    """One batch of noise, repeated.

    Turns off tf.data's autotuning, whose thread can delay the end of `fit` by as long as the whole `fit` takes.
    """
    import tensorflow as tf

    tf.random.set_seed(0)
    images, labels = tf.random.normal((batch, 32, 32, 3)), tf.random.uniform((batch,), 0, 10, tf.int32)
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors((images, labels)).repeat().with_options(options)


def chosen(names: Sequence[str]) -> Iterator[Variant]:
    """The reference and the variants whose text contains one of the names; without names, all variants."""
    for variant in VARIANTS:
        if variant == VARIANTS[0] or not names or any(name in str(variant) for name in names):
            yield variant


def fields(variant: Variant) -> dict[str, str]:
    """A variant's columns in a table of results."""
    return dataclasses.asdict(variant)
