"""Compares choices that the papers leave open on CIFAR-10: SiMaN's gradient rules and variants of the batch median.

    nice .venv/bin/python benchmarks/variants.py [--epochs 1] [--width 0.5] [--size 16] [--threads 2]

Short, equal runs of ResNet-20 with half the width (8-16-32) on images of half the size. All variants of a seed have the
same initial weights, order of images and schedule. The last 5000 training images are held out for evaluation; the test
set is not used. Finished runs have rows in results/variants.csv and are not repeated, so an interrupted series can be
continued.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import record
import tensorflow as tf
import tensorflow_datasets as tfds

import kbnn
from kbnn.methods import Method

BATCH, HELD_OUT, SEEDS = 128, 5000, (0, 1, 2)


def siman(gradient: str) -> Method:
    return dataclasses.replace(
        kbnn.methods.get("siman"), kernel_quantizer=lambda: kbnn.quantizers.HalfHalf(gradient=gradient)
    )


def xnor_with(transform: Callable) -> Method:
    """XNOR-Net with a variant of the batch median, given (activations, γ, β), before each sign."""
    return dataclasses.replace(
        kbnn.methods.get("xnor"), before=(lambda x, name: variant_layer()(transform, name=f"{name}_median")(x),)
    )


def variant_layer() -> type:
    """A batch median with another training pass; evaluation uses the moving averages."""

    class Variant(kbnn.layers.BatchMedian):
        def __init__(self, transform: Callable, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.transform = transform

        def _by_batch(self, inputs: tf.Tensor) -> tf.Tensor:
            outputs, centre = self.transform(inputs, tf.identity(self.gamma), tf.identity(self.beta))
            self._average(self.moving_median, centre)
            return outputs

    return Variant


def sided(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, centre: tf.Tensor, keep: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """γ·m/s±, with `keep` applied to the scales."""
    m = x - centre + beta
    rms = [tf.sqrt(tf.reduce_sum(tf.where(s, m * m, 0.0)) / tf.reduce_sum(tf.cast(s, m.dtype))) for s in (m > 0, m < 0)]
    return gamma * m / tf.where(m < 0, keep(rms[1]), keep(rms[0])), centre


def median_of(x: tf.Tensor) -> tf.Tensor:
    from kbnn.layers import batch_median

    return batch_median.median_of(x)


def constant_scales(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return sided(x, gamma, beta, median_of(x), tf.stop_gradient)


def without_scales(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    centre = median_of(x)
    return gamma * (x - centre + beta), centre


def mean_for_median(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return sided(x, gamma, beta, tf.stop_gradient(tf.reduce_mean(x)), tf.identity)


VARIANTS: dict[tuple[str, str], Callable[[], Method]] = {
    ("siman", "identity"): lambda: siman("identity"),
    ("siman", "magnitude"): lambda: siman("magnitude"),
    ("batch median", "none"): lambda: kbnn.methods.get("xnor"),
    ("batch median", "as published"): lambda: kbnn.methods.get("xnor+bma"),
    ("batch median", "scales constant for the gradient"): lambda: xnor_with(constant_scales),
    ("batch median", "no scales"): lambda: xnor_with(without_scales),
    ("batch median", "mean in place of the median"): lambda: xnor_with(mean_for_median),
}


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's training images, downscaled to `size` by averaging."""
    x, y = tfds.as_numpy(tfds.load("cifar10", split="train", batch_size=-1, as_supervised=True, download=False))
    factor = x.shape[1] // size
    blocks = x.reshape(len(x), size, factor, size, factor, 3)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8), y


def normalized(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32) - 125) / 63


def batches(x: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shuffled batches; each image is separately padded by an eighth, cropped and flipped."""
    rng = np.random.default_rng(seed)
    size, border = x.shape[1], x.shape[1] // 8
    padded = np.pad(x, [(0, 0), (border, border), (border, border), (0, 0)], constant_values=125)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
            top, left = rng.integers(0, 2 * border + 1, (2, len(chosen)))
            cropped = windows[chosen, top, left].transpose(0, 2, 3, 1)
            flipped = np.where(rng.random((len(chosen), 1, 1, 1)) < 0.5, cropped[:, :, ::-1], cropped)
            yield normalized(flipped), y[chosen]


def network(method: Method, shape: tuple[int, ...], width: float, seed: int) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    return kbnn.models.build("resnet20", method=method, input_shape=shape, classes=10, width=width)


class Trained:
    """A network that is traced once and retrained for each seed."""

    def __init__(self, method: Method, data: tuple[np.ndarray, np.ndarray], epochs: int, width: float) -> None:
        self.method, self.data, self.epochs, self.width = method, data, epochs, width
        self.model = network(method, data[0].shape[1:], width, 0)
        steps = epochs * ((len(data[0]) - HELD_OUT) // BATCH)
        self.model.compile(
            tf.keras.optimizers.legacy.SGD(tf.keras.optimizers.schedules.CosineDecay(0.1, steps), momentum=0.9),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    def measure(self, seed: int) -> dict[str, float]:
        x, y = self.data
        self.model.set_weights(network(self.method.fresh(), x.shape[1:], self.width, seed).get_weights())
        for variable in self.model.optimizer.variables():
            variable.assign(tf.zeros_like(variable))
        for batch in batches(x[:-HELD_OUT], y[:-HELD_OUT], self.epochs, seed):
            self.model.train_on_batch(*batch)
        loss, accuracy = self.model.evaluate(normalized(x[-HELD_OUT:]), y[-HELD_OUT:], batch_size=500, verbose=0)
        return {"held_out_loss": round(loss, 4), "held_out_top1": round(100 * accuracy, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=16, help="height and width of the images; divides 32")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    data = images(arguments.size)
    settings = {name: str(getattr(arguments, name)) for name in ("width", "size", "epochs")}
    for (study, variant), method in VARIANTS.items():
        key = {"study": study, "variant": variant, **settings}
        finished = {row["seed"] for row in record.read("variants") if key.items() <= row.items()}
        seeds = [seed for seed in SEEDS if str(seed) not in finished]
        trained = Trained(method(), data, arguments.epochs, arguments.width) if seeds else None
        for seed in seeds:
            record.append("variants", [{**key, **trained.measure(seed)}], seed)
            print(key, record.read("variants")[-1], flush=True)


if __name__ == "__main__":
    main()
