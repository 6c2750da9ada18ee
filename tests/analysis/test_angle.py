"""The angle between codes: the paper's two cases, and all codes of a small size."""

import itertools
import math

import pytest

from kbnn.analysis import angle
from kbnn.errors import UsageError


@pytest.mark.parametrize(
    ("marked", "differing", "lower", "upper"), [(0.37, 0.13, 30.66, 36.35), (0.51, 0.01, 7.97, 8.05)]
)
def test_the_papers_two_cases(marked, differing, lower, upper):
    assert angle(marked, differing) == pytest.approx((lower, upper), abs=0.01)


@pytest.mark.parametrize(("k", "r"), [(4, 0), (4, 1), (4, 2), (3, 3)])
def test_the_bounds_hold_for_every_code_and_are_reached(k, r):
    n = 8
    code = [1] * k + [0] * (n - k)
    angles = []
    for flipped in itertools.combinations(range(n), r):
        other = [bit ^ (i in flipped) for i, bit in enumerate(code)]
        if any(other):
            cosine = sum(a * b for a, b in zip(code, other, strict=True)) / math.sqrt(k * sum(other))
            angles.append(math.degrees(math.acos(min(cosine, 1.0))))
    bounds = angle(k, r)
    assert min(angles) == pytest.approx(bounds.lower, abs=1e-5)
    # If no ones are left, the angle is undefined; only its limit exists.
    assert max(angles) <= bounds.upper + 1e-5
    if r < k:
        assert max(angles) == pytest.approx(bounds.upper, abs=1e-5)


@pytest.mark.parametrize(("marked", "differing"), [(0, 0), (0.3, 0.4), (0.3, -0.1), (float("nan"), 0)])
def test_invalid_arguments_are_explained(marked, differing):
    with pytest.raises(UsageError, match="angle needs"):
        angle(marked, differing)
