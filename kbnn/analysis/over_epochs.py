"""Pictures of latent weights and scales over the epochs, from the history that training records."""

import numpy as np

from kbnn.analysis import figures
from kbnn.analysis.pictures import Picture
from kbnn.analysis.weight_history import EDGES, WeightHistory

# Largest number of histograms that can be told apart in one picture.
MOST = 16


def over_epochs(weights: WeightHistory, label: str = "") -> dict[str, Picture]:
    """Latent weights, and scales if there are any, of the middle binary layer (BNN+, figures 2, 6 and 7).

    Args:
        weights: the recorded history.
        label: label of the run, for captions and for the pictures' names.
    """
    middle = len(weights.layers) // 2
    layer, suffix = weights.layers[middle], f"-{label}" if label else ""
    of = f"{label}: " if label else ""
    chosen = _spread(len(weights.epochs))
    drawn = {
        f"weights-over-epochs{suffix}": figures.histograms_over_epochs(
            weights.epochs[chosen],
            weights.histograms[chosen, middle],
            EDGES,
            "w / mean |w|",
            f"{of}latent weights of {layer} ({weights.histograms[0, middle].sum():,}) after each epoch, in units of "
            f"their mean magnitude; 0 is the untrained network.",
        )
    }
    if layer in weights.scales and not np.isnan(weights.scales[layer]).all():
        drawn[f"scales-over-epochs{suffix}"] = _scales(of, layer, weights)
    return drawn


def _scales(of: str, layer: str, weights: WeightHistory) -> Picture:
    # In some stages, the layer may have no learned scale.
    scaled = np.flatnonzero(~np.isnan(weights.scales[layer]).all(1))
    chosen = scaled[_spread(len(scaled))]
    alphas = weights.scales[layer][chosen]
    edges = np.linspace(0, 1.05 * alphas.max(), 41)
    counts = np.stack([np.histogram(alpha, edges)[0] for alpha in alphas])
    caption = f"{of}learned scales α of the {alphas.shape[1]} filters of {layer} after each epoch."
    return figures.histograms_over_epochs(weights.epochs[chosen], counts, edges, "α", caption)


def _spread(count: int) -> list[int]:
    """Up to `MOST` evenly spaced indices from 0 to count - 1, including both."""
    if count <= MOST:
        return list(range(count))
    return sorted({round(k * (count - 1) / (MOST - 1)) for k in range(MOST)})
