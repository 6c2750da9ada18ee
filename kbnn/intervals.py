"""Confidence intervals of shares, such as accuracies."""

import math

# 97.5th percentile of the normal distribution, for 95 % intervals.
_Z = 1.959964


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of the share `hits / count`, by Wilson's score (Wilson 1927)."""
    share, spread = hits / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (middle - half) if hits else 0.0, (middle + half) if hits < count else 1.0
