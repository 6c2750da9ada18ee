"""Measures of binary weights and activations, each as a NumPy function."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from kbnn.errors import UsageError


def proportion_positive(values: npt.ArrayLike, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Share of +1 among signs: p = mean(x >= 0); zeros, including -0.0, count as +1.

    Args:
        values: signs, or real values, of which only the signs count; any shape.
        axis: axes to average over; by default all. `(0, 1, 2)` gives one share per filter of a kernel
            `(kh, kw, Cin, Cout)`.

    Raises:
        UsageError: there are no values.

    Example:
        >>> float(kbnn.analysis.proportion_positive([1.0, -1.0, 0.0, 2.0]))
        0.75

    Source: SiMaN, equation 14; ML+BMA, equation 4.
    """
    return np.asarray(np.mean(_numbers(values) >= 0, axis=axis))


def entropy(p: npt.ArrayLike) -> np.ndarray:
    """Entropy in bits of a ±1 that is +1 with probability p: H = -p·log2(p) - (1 - p)·log2(1 - p), 0 at p = 0 and 1.

    Example:
        >>> float(kbnn.analysis.entropy(0.5))
        1.0

    Source: ML+BMA, equation 5.
    """
    shares = np.stack([np.asarray(p, float), 1 - np.asarray(p, float)])
    safe = np.where(shares > 0, shares, 1.0)
    # Adding 0 turns -0.0, the result for p = 0 and 1, into 0.0.
    return -(shares * np.log2(safe)).sum(0) + 0.0


def weight_entropy(kernel: npt.ArrayLike) -> float:
    """Entropy in bits of one layer's binary weights: H(p), with p the share of +1 among all of them; at most 1.

    Args:
        kernel: the binarized kernel, any shape; only signs count, so scales (±α) do not matter.

    Example:
        >>> kbnn.analysis.weight_entropy([[1.0, -1.0], [-1.0, 1.0]])
        1.0

    Source: ML+BMA, equation 5. For the paper's figure of a whole network see `network_entropy`.
    """
    return float(entropy(proportion_positive(kernel)))


def activation_entropy(activations: npt.ArrayLike) -> float:
    """Entropy in bits of one layer's binary activations: H(p), p the share of +1 over batch, positions and channels.

    Args:
        activations: the input of the sign, or the signs themselves, `(B, H, W, C)` or any other shape.

    Example:
        >>> kbnn.analysis.activation_entropy([0.3, 0.1, 2.0, 0.0])
        0.0

    Source: ML+BMA, equation 5.
    """
    return float(entropy(proportion_positive(activations)))


def network_entropy(bits: Iterable[float]) -> float:
    """The paper's H of a network: the sum of the entropies of its binary layers, in log10 units: Σ H·log10(2).

    ResNet-20 has 18 binary layers, so its H is at most 18·log10(2) = 5.4185.

    Args:
        bits: entropy in bits of each binary layer.

    Source: ML+BMA, section 4.2. The text mentions neither the sum nor the unit; they follow from its figures.
    """
    return sum(bits) * math.log10(2)


def quantization_error(
    activations: npt.ArrayLike, threshold: npt.ArrayLike = 0.0, scales: Sequence[float] | None = None
) -> float:
    """Relative quantization error of binarized activations: E = mean((A - Â)²) / mean(A²).

    Â = threshold + s₊ where A >= threshold, else threshold - s₋. By default, s₊ and s₋ are optimal in the least-squares
    sense: the mean distances from the threshold on each side. With one threshold, these are the means of the values on
    each side, 0 <= E <= 1, and E compares thresholds independently of levels. With thresholds that differ between
    channels, all channels share s₊ and s₋, and E may exceed 1: it also measures whether the channels' values lie around
    their thresholds. E does not change if A and the thresholds are scaled; for a layer of zeros, E = 0.

    Args:
        activations: the input of the binarization, `(..., C)`.
        threshold: one number, or one per channel.
        scales: s₊ and s₋, instead of the optimal ones.

    Raises:
        UsageError: there are no values.

    Example:
        >>> kbnn.analysis.quantization_error([2.0, -2.0]), kbnn.analysis.quantization_error([3.0, 1.0])
        (0.0, 0.1)

    Deviates from the paper: ML+BMA (section 4.2.3, figure 3) reports 0.59 and 0.02 without defining the measure; see
    `paper_quantization_errors` for what its text describes.
    """
    a = _numbers(activations).astype(float)
    centred = a - np.asarray(threshold, float)
    above = centred >= 0
    positive, negative = scales if scales is not None else (_mean(centred[above]), _mean(-centred[~above]))
    missed = centred - np.where(above, positive, -negative)
    power = np.mean(a**2)
    return float(np.mean(missed**2) / power) if power else 0.0


def paper_quantization_errors(activations: npt.ArrayLike) -> tuple[float, float]:
    """E of the plain sign and of the batch median, with the levels described in ML+BMA's text.

    The sign has one scale for both sides, mean(abs(A)) (XNOR-Net); the batch median has the root mean squares of
    equation 12. These are not least-squares levels: on a side with mean m and root mean square r, the error is larger
    by (r - m)², so for most activations the batch median is worse in this comparison.

    Source: ML+BMA, section 4.2.3, "a uniform scaling factor" against "positive and negative activations separately".
    """
    a = _numbers(activations).astype(float)
    uniform = float(np.abs(a).mean())
    omega, scales = batch_median(a)
    return quantization_error(a, scales=(uniform, uniform)), quantization_error(a, omega, scales)


def batch_median(activations: npt.ArrayLike) -> tuple[float, tuple[float, float]]:
    """ω and (s₊, s₋) of the batch median of one batch: ω = median(A), s± = √(mean(m±²)) with m = A - ω.

    m₊ and m₋ are the positive and the negative entries of m; zeros belong to neither. The scale of an empty side is 1.

    Source: ML+BMA, equations 11 and 12 with β = 0 and γ = 1.
    """
    a = _numbers(activations).astype(float)
    omega = float(np.median(a))
    m = a - omega
    return omega, (_root_mean_square(m[m > 0]), _root_mean_square(m[m < 0]))


def optimal_proportion(kernel: npt.ArrayLike) -> np.ndarray:
    """Share of ones in SiMaN's optimal {0, 1} code of each filter: k*/n, k* = argmax_k Σ_{i<=k} |w|_(i) / √k.

    About 0.37 for Laplacian and 0.54 for Gaussian weights, independent of their scale; 1 for a filter of zeros.

    Args:
        kernel: latent weights `(..., Cout)`.

    Returns:
        One share for each filter, `(Cout,)`.

    Source: SiMaN, equation 12 and corollaries 1 and 2.
    """
    w = _numbers(kernel).astype(float)
    ordered = -np.sort(-np.abs(w.reshape(-1, w.shape[-1] if w.ndim > 1 else 1)), axis=0)
    k = np.arange(1, len(ordered) + 1)[:, None]
    cosines = np.cumsum(ordered, axis=0) / np.sqrt(k)
    best = np.where(ordered[0] > 0, cosines.argmax(0) + 1, len(ordered))
    return best / len(ordered)


def flip_ratio(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """Share of binary weights whose sign differs between two states of a layer.

    Example:
        >>> kbnn.analysis.flip_ratio([1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
        0.25
    """
    return float(np.mean((_numbers(before) >= 0) != (_numbers(after) >= 0)))


def _numbers(values: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.size == 0:
        raise UsageError(f"nothing to measure: received an empty array of shape {array.shape}")
    return array


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 1.0
