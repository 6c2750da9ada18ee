"""Measures of a network's binary layers, as a table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kbnn import tables
from kbnn.analysis import measures
from kbnn.analysis.observation import SAMPLES, Observation, images_of, observe
from kbnn.datasets import Dataset

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.analysis.pictures import Picture


@dataclass(frozen=True)
class LayerReport:
    """One binary layer.

    `weight_positive` and `activation_positive` are shares of +1, `weight_entropy` and `activation_entropy` entropies in
    bits, and `optimal_proportion` is the share of ones in SiMaN's optimal code. `quantization_error` is the error with
    the network's own threshold (that of a batch median, a channel shift or AdaBin's activations; 0 without one),
    `quantization_error_sign` and `_median` the errors with the plain sign and with the median of these images, all with
    the optimal levels for their threshold. `paper_error_sign` and `paper_error_median` use ML+BMA's own levels, see
    `kbnn.analysis.paper_quantization_errors`.
    """

    name: str
    weights: int
    weight_positive: float
    weight_entropy: float
    activation_positive: float
    activation_entropy: float
    quantization_error: float
    quantization_error_sign: float
    quantization_error_median: float
    paper_error_sign: float
    paper_error_median: float
    optimal_proportion: float


@dataclass(frozen=True)
class Report(tables.Shown):
    """All binary layers of a network, measured on some images.

    `weight_entropy` and `activation_entropy` are ML+BMA's H: sums over layers in log10 units.
    """

    model: str
    samples: int
    weight_entropy: float
    activation_entropy: float
    quantization_error: float
    layers: tuple[LayerReport, ...]

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Column names and rows of the table: weights, inputs, quantization errors of the inputs, and optimal code."""
        columns = (
            *("layer", ">weights", ">+1", ">bits", ">inputs +1", ">bits"),
            *(">error", ">sign's", ">median's", ">paper: sign's", ">median's", ">optimal"),
        )
        return columns, [_cells(layer) for layer in self.layers]

    def __str__(self) -> str:
        summary = (
            f"{self.model}, {self.samples} images: entropy of weights {self.weight_entropy:.4f}, of activations "
            f"{self.activation_entropy:.4f} (sums over {len(self.layers)} layers in log10, at most "
            f"{measures.network_entropy([1.0] * len(self.layers)):.4f}); mean quantization error "
            f"{self.quantization_error:.3f}"
        )
        return f"{tables.render(*self.cells())}\n{summary}"


def _cells(layer: LayerReport) -> tuple[str, ...]:
    return (
        layer.name,
        f"{layer.weights:,}",
        f"{layer.weight_positive:.2%}",
        f"{layer.weight_entropy:.4f}",
        f"{layer.activation_positive:.2%}",
        f"{layer.activation_entropy:.4f}",
        f"{layer.quantization_error:.3f}",
        f"{layer.quantization_error_sign:.3f}",
        f"{layer.quantization_error_median:.3f}",
        f"{layer.paper_error_sign:.3f}",
        f"{layer.paper_error_median:.3f}",
        f"{layer.optimal_proportion:.1%}",
    )


def report(model: "tf.keras.Model", data: Dataset | np.ndarray, samples: int = SAMPLES) -> Report:
    """Measures every binary layer of a network.

    Args:
        model: a Keras model with binary layers.
        data: a `kbnn.datasets.Dataset`, whose held-out images are used, or network inputs `(N, H, W, C)`.
        samples: number of images.

    Raises:
        UsageError: the model has no binary layer.

    Example:
        >>> print(kbnn.analysis.report(model, kbnn.datasets.load("digits")))
    """
    images = images_of(data, samples)
    return summarize(model.name, len(images), observe(model, images))


def drawings(model: "tf.keras.Model", data: Dataset | np.ndarray, samples: int = SAMPLES) -> "dict[str, Picture]":
    """The pictures of `kbnn analyze` by name; a notebook shows a picture that is the last value of a cell.

    Args:
        model: a Keras model with binary layers.
        data: a `kbnn.datasets.Dataset`, whose held-out images are used, or network inputs `(N, H, W, C)`.
        samples: maximum number of images.

    Raises:
        UsageError: the model has no binary layer.

    Example:
        >>> kbnn.analysis.drawings(model, data)["shares"]
    """
    from kbnn.analysis.figures import of_networks

    images = images_of(data, samples)
    layers = observe(model, images)
    return of_networks({model.name: layers}, {model.name: summarize(model.name, len(images), layers)})


def summarize(name: str, samples: int, observations: list[Observation]) -> Report:
    """The report of observed layers."""
    layers = tuple(_layer(observation) for observation in observations)
    return Report(
        name,
        samples,
        measures.network_entropy(layer.weight_entropy for layer in layers),
        measures.network_entropy(layer.activation_entropy for layer in layers),
        sum(layer.quantization_error for layer in layers) / len(layers),
        layers,
    )


def _layer(seen: Observation) -> LayerReport:
    paper_sign, paper_median = measures.paper_quantization_errors(seen.activations)
    return LayerReport(
        name=seen.name,
        weights=seen.binary.size,
        weight_positive=float(measures.proportion_positive(seen.binary)),
        weight_entropy=measures.weight_entropy(seen.binary),
        activation_positive=float(measures.proportion_positive(seen.signs)),
        activation_entropy=measures.activation_entropy(seen.signs),
        quantization_error=measures.quantization_error(seen.activations, seen.threshold),
        quantization_error_sign=measures.quantization_error(seen.activations),
        quantization_error_median=measures.quantization_error(seen.activations, np.median(seen.activations)),
        paper_error_sign=paper_sign,
        paper_error_median=paper_median,
        optimal_proportion=float(measures.optimal_proportion(seen.latent).mean()),
    )
