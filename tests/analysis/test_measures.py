"""Measures against their formulas, by hand, and on samples of known distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kbnn import analysis
from kbnn.errors import UsageError

values = arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_nan=False))


def test_zeros_of_either_sign_count_as_plus_one():
    assert analysis.proportion_positive([0.0, -0.0, -1.0, 2.0]) == 0.75


def test_one_share_per_filter():
    kernel = np.stack([np.ones((3, 3, 4)), -np.ones((3, 3, 4))], axis=-1)
    np.testing.assert_array_equal(analysis.proportion_positive(kernel, axis=(0, 1, 2)), [1, 0])


@pytest.mark.parametrize(("p", "bits"), [(0, 0), (1, 0), (0.5, 1), (0.25, 2 - 0.75 * math.log2(3))])
def test_entropy_by_hand(p: float, bits: float):
    assert analysis.entropy(p) == pytest.approx(bits, abs=1e-15)


def test_the_paper_s_largest_entropy_of_resnet_20():
    assert analysis.network_entropy([1.0] * 18) == pytest.approx(5.4185, abs=5e-5)


@given(values)
def test_entropies_count_signs_only(x: np.ndarray):
    assert analysis.weight_entropy(x) == analysis.weight_entropy(np.where(x >= 0, 0.3, -0.3))
    assert 0 <= analysis.activation_entropy(x) <= 1


def test_quantization_error_by_hand():
    assert analysis.quantization_error([2.0, -2.0]) == 0
    # Both are on the positive side and become 2, their mean.
    assert analysis.quantization_error([3.0, 1.0]) == pytest.approx((1 + 1) / (9 + 1))
    # Each side separately: 3 and 1 become 2, -2 and -4 become -3.
    assert analysis.quantization_error([3.0, 1.0, -2.0, -4.0]) == pytest.approx(4 / (9 + 1 + 4 + 16))
    # Threshold 2: 3 and 1 become 2 + 1 and 2 - 1.
    assert analysis.quantization_error([3.0, 1.0], threshold=2.0) == 0
    assert analysis.quantization_error([3.0, -1.0], scales=(2.0, 1.0)) == pytest.approx(1 / 10)
    assert analysis.quantization_error([0.0, 0.0]) == 0


def test_quantization_errors_by_the_papers_own_levels():
    """The sign uses the mean magnitude, 2.5, on both sides; the batch median uses root mean squares around ω."""
    a = np.array([3.0, 1.0, -2.0, -4.0])
    sign = (0.5**2 + 1.5**2 + 0.5**2 + 1.5**2) / 30
    # ω is the mean of the middle values 1 and -2: -0.5, and m = 3.5, 1.5, -1.5, -3.5.
    rms = math.sqrt((1.5**2 + 3.5**2) / 2)
    median = 2 * ((3.5 - rms) ** 2 + (1.5 - rms) ** 2) / 30
    assert analysis.paper_quantization_errors(a) == (pytest.approx(sign), pytest.approx(median))
    assert analysis.quantization_error(a, -0.5) < median


def test_a_threshold_for_each_channel():
    assert analysis.quantization_error([[1.0, 11.0], [-1.0, 9.0]], threshold=[0.0, 10.0]) == 0


@given(values)
def test_the_plain_sign_s_error_is_a_share(x: np.ndarray):
    assert -1e-9 <= analysis.quantization_error(x) <= 1 + 1e-9


def test_gaussian_activations_lose_1_minus_2_over_pi():
    x = np.random.default_rng(0).normal(size=200_000)
    assert analysis.quantization_error(7 * x) == pytest.approx(1 - 2 / math.pi, abs=3e-3)


def test_batch_median_by_hand():
    omega, (positive, negative) = analysis.batch_median([0.0, 1.0, 3.0, 8.0])
    assert omega == 2
    assert positive == pytest.approx(math.sqrt((1 + 36) / 2))
    assert negative == pytest.approx(math.sqrt((4 + 1) / 2))


def test_batch_median_of_activations_with_zeros():
    # After a ReLU, most activations are zero and equal to the median: they belong to neither side, as in the layer.
    assert analysis.batch_median([0.0, 0.0, 0.0, 3.0, 5.0]) == (0.0, (pytest.approx(math.sqrt((9 + 25) / 2)), 1.0))
    # The sign: mean 1.6, missed by 1.6 three times, 1.4 and 3.4. The batch median: the zeros become s₊ as well.
    errors = analysis.paper_quantization_errors([0.0, 0.0, 0.0, 3.0, 5.0])
    positive = math.sqrt(17)
    missed = 3 * positive**2 + (3 - positive) ** 2 + (5 - positive) ** 2
    assert errors == (pytest.approx((3 * 1.6**2 + 1.4**2 + 3.4**2) / 34), pytest.approx(missed / 34))


def test_batch_median_of_equal_activations_has_empty_sides():
    assert analysis.batch_median(np.full(5, 3.0)) == (3.0, (1.0, 1.0))


@pytest.mark.parametrize(("sample", "share"), [("laplace", 0.37), ("normal", 0.54)])
def test_the_optimal_code_marks_what_siman_s_corollary_2_says(sample: str, share: float):
    kernel = getattr(np.random.default_rng(0), sample)(size=(3, 3, 2000, 4))
    np.testing.assert_allclose(analysis.optimal_proportion(kernel), share, atol=0.02)


def test_the_optimal_code_by_trying_every_length():
    kernel = np.random.default_rng(1).normal(size=(7, 3))
    ordered = np.sort(np.abs(kernel), axis=0)[::-1]
    best = [max(range(1, 8), key=lambda k: ordered[:k, j].sum() / math.sqrt(k)) / 7 for j in range(3)]
    np.testing.assert_array_equal(analysis.optimal_proportion(kernel), best)


def test_the_optimal_code_of_equal_and_of_dead_filters():
    np.testing.assert_array_equal(analysis.optimal_proportion(np.array([[1.0, 0.0], [1.0, 0.0]])), [1, 1])


def test_flip_ratio_by_hand():
    assert analysis.flip_ratio([1.0, -1.0, -0.0, 5.0], [-1.0, -2.0, 0.0, 5.0]) == 0.25


def test_empty_arrays_are_refused():
    with pytest.raises(UsageError, match=r"empty array of shape \(0, 3\)"):
        analysis.weight_entropy(np.zeros((0, 3)))
