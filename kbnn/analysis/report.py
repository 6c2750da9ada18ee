"""The figures of a network's binary layers, as a table."""

from dataclasses import dataclass
from typing import Any

from kbnn import tables
from kbnn.analysis import measures
from kbnn.analysis.observation import SAMPLES, Binarization, Observation, batch_median_of, images_of, observe


@dataclass(frozen=True)
class LayerReport:
    """One binary layer.

    Shares of +1 among weights and activations, their entropies in bits, the activations' quantization error as the
    network binarizes them, by the plain sign, and by the median of these images, and the share that SiMaN's optimal
    code would mark.
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
    optimal_proportion: float


@dataclass(frozen=True)
class Report:
    """All binary layers of a network over some images.

    `weight_entropy` and `activation_entropy` are ML+BMA's H: Σ over layers in log10 units.
    """

    model: str
    samples: int
    weight_entropy: float
    activation_entropy: float
    quantization_error: float
    layers: tuple[LayerReport, ...]

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Column names and rows of the table: of the weights, of the inputs, the inputs' errors, the optimal code."""
        columns = (
            *("layer", ">weights", ">+1", ">bits", ">inputs +1", ">bits"),
            *(">error", ">sign's", ">median's", ">optimal"),
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
        f"{layer.optimal_proportion:.1%}",
    )


def report(model: Any, data: Any, samples: int = SAMPLES) -> Report:
    """Measures every binary layer of a network.

    Args:
        model: a Keras model with binary layers.
        data: a `kbnn.datasets.Dataset`, of which held-out images are taken, or network inputs `(N, H, W, C)`.
        samples: number of images.

    Raises:
        UsageError: the model has no binary layer.

    Example:
        >>> print(kbnn.analysis.report(model, kbnn.datasets.load("digits")))
    """
    images = images_of(data, samples)
    return summarise(model.name, len(images), observe(model, images))


def summarise(name: str, samples: int, observations: list[Observation]) -> Report:
    """The report of what was observed."""
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
    return LayerReport(
        name=seen.name,
        weights=seen.binary.size,
        weight_positive=float(measures.proportion_positive(seen.binary)),
        weight_entropy=measures.weight_entropy(seen.binary),
        activation_positive=float(measures.proportion_positive(seen.signs)),
        activation_entropy=measures.activation_entropy(seen.signs),
        quantization_error=_error(seen, seen.binarization),
        quantization_error_sign=measures.quantization_error(seen.activations),
        quantization_error_median=_error(seen, batch_median_of(seen.activations)),
        optimal_proportion=float(measures.optimal_proportion(seen.latent).mean()),
    )


def _error(seen: Observation, binarization: Binarization) -> float:
    return measures.quantization_error(seen.activations, binarization.threshold, binarization.scales)
