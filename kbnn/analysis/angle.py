"""Bounds of the angle between the half-half code and the optimal one (SiMaN)."""

import math
from typing import NamedTuple

from kbnn.errors import UsageError


class Angle(NamedTuple):
    """Bounds of an angle, in degrees."""

    lower: float
    upper: float


def angle(marked: float, differing: float) -> Angle:
    """The angle between a {0, 1} code with k ones and any code that differs from it in r bits.

    arccos √(k/(k + r)) <= angle <= arccos √((k - r)/k): the r bits are all added, or all removed.

    Args:
        marked: k, as a number of weights or as a share of them.
        differing: r, in the same unit, at most k.

    Raises:
        UsageError: k is not positive, or r is not between 0 and k.

    Example:
        >>> angle(0.37, 0.13)  # Laplacian weights: the optimum marks 37 %, half-half 50 %
        Angle(lower=30.65..., upper=36.35...)
        >>> angle(0.51, 0.01)  # trained without an L2 penalty
        Angle(lower=7.97..., upper=8.04...)

    Source: Lin et al., SiMaN, 2022, corollary 3.
    """
    if not marked > 0 or not 0 <= differing <= marked:
        raise UsageError(f"angle needs 0 < marked and 0 <= differing <= marked: received {marked}, {differing}")
    lower = math.acos(math.sqrt(marked / (marked + differing)))
    upper = math.acos(math.sqrt((marked - differing) / marked))
    return Angle(math.degrees(lower), math.degrees(upper))
