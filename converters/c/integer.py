"""Integer arithmetic of TensorFlow Lite's int8 operators, and cheaper forms that are proven to give the same results.

An operator maps an integer x (a sum of products, a count of bits, an int8 value) to an int8 value by a line and a
rounding, in TensorFlow Lite with two roundings or in float. A microcontroller computes (x·M + B) >> S instead. `fit`
searches for M and B per channel that give the same result for every x that can occur, and returns None if there are
none.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOW, HIGH = -128, 127
LEVELS = np.arange(LOW, HIGH + 1, dtype=np.int64)
_INT32 = 2**31
# Larger than any value it is compared with.
_FAR = 2**62


def quantized_multiplier(real: float) -> tuple[int, int]:
    """`real` as multiplier·2^(shift - 31), the multiplier in [2^30, 2^31): TensorFlow Lite's QuantizeMultiplier."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * _INT32 + 0.5)
    if multiplier == _INT32:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def multiplier_of_scales(
    factors: Sequence[float], divisor: float, precision: type[np.float32] | type[np.float64] = np.float64
) -> tuple[int, int]:
    """The quantized multiplier of a product of scales divided by a scale, in the precision that the operator uses."""
    scales: np.ndarray = np.array([*factors, divisor], np.float32).astype(precision)
    return quantized_multiplier(float(np.prod(scales[:-1]) / scales[-1]))


def _doubling_high_word(x: np.ndarray, multiplier: int) -> np.ndarray:
    return (x * multiplier + (1 << 30)) >> 31


def rescaled(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """TensorFlow Lite's MultiplyByQuantizedMultiplier: rounds twice, halves away from zero the second time."""
    high = _doubling_high_word(np.asarray(x, np.int64) << max(shift, 0), multiplier)
    right = max(-shift, 0)
    mask = (1 << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def rescaled_up(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """MultiplyByQuantizedMultiplier in the matrix products behind convolutions and dense layers: rounds halves up."""
    high = _doubling_high_word(np.asarray(x, np.int64) << max(shift, 0), multiplier)
    right = max(-shift, 0)
    return (high + ((1 << right) >> 1)) >> right


def _moved(x: np.ndarray, left: int) -> np.ndarray:
    return x << left if left >= 0 else x >> -left


def term_in_vector(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """x·2^20 rescaled with one rounding: a term of TensorFlow Lite's optimized ADD, as its vector code computes it."""
    return _doubling_high_word(_moved(np.asarray(x, np.int64), 20 + shift), multiplier)


def term_of_broadcast(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """A term of the optimized ADD if one operand is a single value: the bits that are shifted out are truncated."""
    return _moved(_doubling_high_word(np.asarray(x, np.int64) << 20, multiplier), shift)


def term_alone(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """A term of ADD in the reference kernel, and for the last values of an array, which fill no vector: two roundings.

    They may differ by one from `term_in_vector`.
    """
    return rescaled(np.asarray(x, np.int64) << 20, multiplier, shift)


def rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest integer, halves away from zero, as TfLiteRound does."""
    return np.copysign(np.floor(np.abs(x.astype(np.float64)) + 0.5), x).astype(np.int64)


def to_int8(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Float values on the levels of an int8 tensor: TensorFlow Lite's optimized QUANTIZE.

    Its vectors multiply by the scale's inverse and round halves to even.
    """
    levels = np.rint(np.asarray(x, np.float32) * (np.float32(1) / np.float32(scale)))
    return saturated(levels.astype(np.int64) + zero_point)


def to_int8_alone(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """The same for the last values of an array, which fill no vector.

    They are divided in double precision, with halves rounded away from zero.
    """
    return saturated(rounded(np.asarray(x, np.float64) / np.float64(np.float32(scale))) + zero_point)


def saturated(x: np.ndarray, low: int = LOW, high: int = HIGH) -> np.ndarray:
    return np.clip(x, low, high).astype(np.int8)


@dataclass(frozen=True)
class Line:
    """(x·multiplier + offset) >> shift per channel; with `left`, (((x << left)·multiplier >> 32) + offset) >> shift."""

    multiplier: np.ndarray
    offset: np.ndarray
    shift: int
    left: int = 0
    low: int = LOW
    high: int = HIGH

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The results `(levels, C)` for x `(levels, 1)`, as the C code computes them."""
        x = np.asarray(x, np.int64)
        product = ((x << self.left) * self.multiplier) >> 32 if self.left else x * self.multiplier
        return saturated((product + self.offset) >> self.shift, self.low, self.high)


def fit(x: np.ndarray, y: np.ndarray, low: int = LOW, high: int = HIGH) -> Line | None:
    """A line in 32-bit arithmetic with y = line(x), clipped to `low` and `high`, for all x.

    Args:
        x: the values that can occur, `(levels,)`.
        y: their results, int8 `(levels, C)`.
        low: the smallest result.
        high: the largest.
    """
    slope, offset = _real_lines(x, y)
    largest = np.abs(slope[None] * x[:, None] + offset).max(initial=1.0) + np.abs(offset).max(initial=0.0) + 1.0
    shift = min(24, 29 - math.ceil(math.log2(largest)))
    if shift < 0:
        return None
    found = _search(x, y, slope, (low, high), unit_shift=0, shift=shift, left=0)
    return found if _fits_int32(x, found) and np.array_equal(found(x[:, None]), y) else None


@dataclass(frozen=True)
class Short:
    """(((x - centre)·multiplier >> shift) + offset) >> fraction per channel, with multiplier and offset in 16 bits.

    `exceptions` are (x, channel) where the result is one more or one less: `(n, 3)` with the difference.
    """

    multiplier: np.ndarray
    offset: np.ndarray
    centre: int
    shift: int
    fraction: int
    exceptions: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The results `(levels, C)` for x `(levels, 1)`, as the C code computes them before it applies exceptions."""
        product = (np.asarray(x, np.int64) - self.centre) * self.multiplier
        return saturated(((product >> self.shift) + self.offset) >> self.fraction)


# How far from the best line 16-bit constants are searched; farther ones do not reduce the exceptions.
_NEARBY = 1
_MOST_SHORT_EXCEPTIONS = 255


def fit_short(x: np.ndarray, y: np.ndarray) -> Short | None:
    """A line with 16-bit constants and y = line(x) for all x except a few.

    Returns None if there are more than three exceptions per four channels: 32-bit constants then take less memory.
    """
    slope, offset = _real_lines(x, y)
    steepest = np.abs(slope).max()
    if steepest < 2.0**-20 or y.shape[1] >= 2**15:
        return None
    # Offsets are smallest around the x where the lines are closest to zero, which leaves more bits for fractions.
    centre = int(x[np.argmin([np.abs(slope * place + offset).max() for place in x])])
    largest = np.abs(slope * centre + offset).max()
    fraction = min(10, math.floor(15 - math.log2(max(largest, 1.0)) - 0.01))
    shift = math.floor(15 - math.log2(steepest) - 0.001) - fraction
    if fraction < 6 or not 0 <= shift <= 22 or np.abs(x).max() >= 2**14:
        return None
    found = _search(x - centre, y, slope, (LOW, HIGH), unit_shift=shift, shift=fraction, left=0)
    limit = 2**15 - 1 - _NEARBY
    multiplier, offsets = (np.clip(values, -limit, limit) for values in (found.multiplier, found.offset))
    line = _nearby(Short(multiplier, offsets, centre, shift, fraction, np.zeros((0, 3), np.int64)), x, y)
    difference = y.astype(np.int64) - line(x[:, None])
    places = np.argwhere(difference)
    if np.abs(difference).max() > 1 or len(places) > min(y.shape[1] * 3 // 4, _MOST_SHORT_EXCEPTIONS):
        return None
    return dataclasses.replace(line, exceptions=np.column_stack([places, difference[tuple(places.T)]]))


def _nearby(line: Short, x: np.ndarray, y: np.ndarray) -> Short:
    """The constants near those of a line that give each channel the fewest exceptions."""
    wrong = (line(x[:, None]) != y).sum(0)
    (channels,) = np.nonzero(wrong)
    multiplier, offset = line.multiplier.copy(), line.offset.copy()
    for step in range(-_NEARBY, _NEARBY + 1):
        for move in range(-_NEARBY, _NEARBY + 1):
            tried = dataclasses.replace(
                line, multiplier=line.multiplier[channels] + step, offset=line.offset[channels] + move
            )
            count = (tried(x[:, None]) != y[:, channels]).sum(0)
            better = count < wrong[channels]
            places = channels[better]
            multiplier[places], offset[places] = tried.multiplier[better], tried.offset[better]
            wrong[places] = count[better]
    return dataclasses.replace(line, multiplier=multiplier, offset=offset)


def fit_wide(x: np.ndarray, y: np.ndarray) -> tuple[Line, np.ndarray] | None:
    """A line with a 64-bit product and y = line(x) for x >= 0, clipped to the range of y.

    Float results of large sums may deviate from a line: the exceptions are returned too, as indices into y, `(n, 2)`.
    """
    slope, offset = _real_lines(x, y)
    left = 30 - int(x.max()).bit_length()
    largest = np.abs(slope[None] * x[:, None] + offset).max(initial=1.0) + np.abs(offset).max(initial=0.0) + 1.0
    steepest = np.abs(slope).max(initial=2.0**-30)
    shift = min(29 - math.ceil(math.log2(largest)), math.floor(left - 2 - math.log2(steepest)))
    if left < 1 or shift < 0:
        return None
    limits = (int(y.min()), int(y.max()))
    found = _search(x, y, slope, limits, unit_shift=32, shift=shift, left=left)
    if np.abs(found.multiplier).max() >= _INT32 or np.abs(found.offset).max() >= _INT32 // 2:
        return None
    return found, np.argwhere(found(x[:, None]) != y)


def _fits_int32(x: np.ndarray, line: Line) -> bool:
    values = np.abs(x).max() * np.abs(line.multiplier) + np.abs(line.offset)
    return bool(values.max() < _INT32)


def _real_lines(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and offsets of the parts of y that are not saturated."""
    inside = (y > y.min()) & (y < y.max())
    weight = np.where(inside.sum(0) >= 2, inside, True).astype(np.float64)
    count = weight.sum(0)
    mean_x, mean_y = (weight * x[:, None]).sum(0) / count, (weight * y).sum(0) / count
    centred = x[:, None] - mean_x
    spread = np.maximum((weight * centred**2).sum(0), 1e-9)
    slope = (weight * centred * y).sum(0) / spread
    return slope, mean_y - slope * mean_x


def _search(
    x: np.ndarray, y: np.ndarray, slope: np.ndarray, limits: tuple[int, int], *, unit_shift: int, shift: int, left: int
) -> Line:
    """Multipliers that leave the offset the widest interval: its width is concave in the multiplier."""
    total = unit_shift + shift
    values = y.astype(np.int64)
    smallest, largest = limits
    low = np.where(values > smallest, values << total, -_FAR)
    high = np.where(values < largest, ((values + 1) << total) - 1, _FAR)
    scaled = x.astype(np.int64)[:, None] << left

    def interval(multiplier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        product = scaled * multiplier
        return (low - product).max(0), (high - product).min(0)

    def width(multiplier: np.ndarray) -> np.ndarray:
        lowest, highest = interval(multiplier)
        return highest - lowest

    centre = slope * 2.0 ** (total - left)
    reach = np.maximum(np.abs(centre) * 0.05, 4.0) + 2.0 ** (total - left) * 2.0 / max(float(np.ptp(x)), 1.0)
    limit = float(_INT32 - 1)
    a = np.clip(np.floor(centre - reach), -limit, limit).astype(np.int64)
    b = np.clip(np.ceil(centre + reach), -limit, limit).astype(np.int64)
    while np.any(b - a > 2):
        third = (b - a) // 3
        left_one, right_one = a + third, b - third
        rising = width(left_one) < width(right_one)
        a, b = np.where(rising, left_one, a), np.where(rising, b, right_one)
    candidates = np.stack([a, (a + b) // 2, b])
    best = candidates[np.argmax([width(candidate) for candidate in candidates], axis=0), np.arange(len(slope))]
    lowest, highest = interval(best)
    lowest, highest = -((-lowest) >> unit_shift), highest >> unit_shift
    middle = np.clip((lowest + highest) // 2, -_INT32 + 1, _INT32 - 1)
    return Line(best, middle, shift, left, smallest, largest)


@dataclass(frozen=True)
class Sum:
    """(a·a_multiplier + b·b_multiplier + offset) >> shift of two int8 values, in 64 bits where `wide`."""

    a_multiplier: int
    b_multiplier: int
    offset: int
    shift: int
    wide: bool


def fit_sum(table: np.ndarray, a_slope: float, b_slope: float) -> Sum | None:
    """A sum that equals `table`, int8 `(256, 256)`, for all a (rows) and b (columns), near the real slopes."""
    largest = HIGH * (a_slope + b_slope) + 2.0 * HIGH
    for total, wide in (
        (29 - math.ceil(math.log2(largest)), False),
        (29 - math.ceil(math.log2(a_slope + b_slope)), True),
    ):
        for a_step, b_step in ((i, k) for i in (0, 1, -1, 2, -2) for k in (0, 1, -1, 2, -2)):
            a_multiplier = round(a_slope * 2.0**total) + a_step
            b_multiplier = round(b_slope * 2.0**total) + b_step
            lowest, highest = _offsets(table, a_multiplier, b_multiplier, total)
            if lowest <= highest:
                return Sum(a_multiplier, b_multiplier, (lowest + highest) // 2, total, wide)
    return None


def _offsets(table: np.ndarray, a_multiplier: int, b_multiplier: int, shift: int) -> tuple[int, int]:
    """The smallest and the largest offset for which a sum equals `table`."""
    product = LEVELS[:, None] * a_multiplier + LEVELS * b_multiplier
    values = table.astype(np.int64)
    lowest = np.where(values > LOW, (values << shift) - product, -_FAR).max()
    highest = np.where(values < HIGH, ((values + 1) << shift) - 1 - product, _FAR).min()
    return int(lowest), int(highest)


def with_shift(line: Line, shift: int) -> Line:
    """A line with fewer fractional bits, rounded; the caller checks whether it still gives the same results."""
    fewer = line.shift - shift
    half = (1 << fewer) >> 1
    return dataclasses.replace(
        line, multiplier=(line.multiplier + half) >> fewer, offset=(line.offset + half) >> fewer, shift=shift
    )
