"""Signs and binary convolutions."""

import dataclasses
import math

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor, words_of
from kbnn.converters.c.writers.lowering import Accumulator, Derived, Function, Lowering, Signs, writes
from kbnn.converters.c.writers.operators import LARGEST_SIZE, Geometry, fused_activation, refused
from kbnn.converters.c.writers.steps import channel_constants
from kbnn.converters.tflite.flatbuffer import Operator

# A larger stride could place the second of two pixels beyond the ring, where the patch is stored.
_LONGEST_PAIR_STRIDE = 8
# The most exceptions per filter; with more, the results do not follow a line.
_MOST_EXCEPTIONS = 16


@writes("LceQuantize")
def _signs(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Tensor, Derived)
    signs = _signs_of_source(value) if isinstance(value, Derived) else None
    lowering.values[operator.outputs[0].index] = signs or Signs(lowering.tensor(operator))


def _signs_of_source(value: Derived) -> Signs | None:
    """The signs of a function of a tensor, if each channel has those of the tensor, or +1 for all values.

    That is so for max(x, slope·x), whose slopes are 1, or 0 where the network has a PReLU with a slope of 0 or less.
    """
    negative = value.table < value.tensor.zero_point
    own = (value.source.zero_point > integer.LEVELS)[:, None]
    same = np.all(negative == own, axis=0)
    return Signs(value.source, same) if np.all(same | ~negative.any(0)) else None


@writes("LceBconv2d")
def _binary_convolution(lowering: Lowering, operator: Operator) -> None:
    bits = lowering.of(operator, 0, Signs, Tensor)
    kernel = operator.inputs[1]
    if kernel is None or kernel.data is None or len(kernel.shape) != 4:
        raise refused(operator, "its kernel is not a constant")
    source = bits.tensor if isinstance(bits, Signs) else bits
    channels = operator.options.get("channels_in", source.channels)
    groups = max(1, words_of(channels) // kernel.shape[3])
    largest = math.prod(kernel.shape[1:3]) * channels // groups
    accumulator = Accumulator(operator, bits, largest)
    if operator.outputs[0].dtype == "int32":
        output = dataclasses.replace(lowering.output(operator, kind="bits"), channels=kernel.shape[0])
        lowering.values[operator.outputs[0].index] = output
        _write_thresholds(lowering, accumulator, output)
        return
    levels = np.arange(largest + 1)
    table = _float_sums(operator, levels, largest)
    function = Function(accumulator, levels, np.stack([table, table]))
    if operator.outputs[0].dtype == "int8":
        output = lowering.output(operator)
        write_sums(lowering, accumulator, integer.saturated(integer.rounded(table)), output)
    else:
        lowering.values[operator.outputs[0].index] = function


def _float_sums(operator: Operator, levels: np.ndarray, largest: int) -> np.ndarray:
    """LCE's float result for each count of differing bits, computed as LCE does: `(levels, C)`."""
    output = operator.outputs[0]
    scale, zero_point = (np.float64(np.float32(output.scales[0])), output.zero_points[0]) if output.scales else (1.0, 0)
    multiplier, bias = (_float64(operator, k) for k in (2, 3))
    slope = (-multiplier / scale).astype(np.float32)
    offset = ((bias + largest * multiplier) / scale + zero_point).astype(np.float32)
    # The activation applies to the sum of signs, largest - 2·level.
    low, high = fused_activation(operator, "fused_activation_function")
    doubled = np.clip(2 * levels[:, None], largest - min(high, largest), largest - max(low, -largest))
    return doubled.astype(np.float32) * slope + offset


def _float64(operator: Operator, number: int) -> np.ndarray:
    item = operator.inputs[number]
    if item is None or item.dtype != "float32":
        raise refused(operator, "its multiplier or bias is missing")
    return item.value().astype(np.float64)


def write_sums(lowering: Lowering, accumulator: Accumulator, table: np.ndarray, output: Tensor) -> None:
    """Adds a binary convolution that writes int8. `table` holds the result per count of differing bits and filter."""
    levels = np.arange(accumulator.largest + 1)
    is_limited = bool(accumulator.operator.options.get("fused_activation_function"))
    if is_limited:
        levels = _varying(table)
    write, params = _scaling(accumulator.operator, levels, table[levels], output)
    if is_limited:
        fields: dict[str, Field] = {"write": write, "output": params, "low": int(levels[0]), "high": int(levels[-1])}
        write, params = "kbnn_write_limited", Struct("kbnn_limited", fields, f"{output.name}/limited")
    _bconv_step(lowering, accumulator, output, write, params)


def _varying(table: np.ndarray) -> np.ndarray:
    """The rows of a table without those that repeat the first or the last one."""
    changes = np.flatnonzero(np.any(table[1:] != table[:-1], axis=1))
    return np.arange(changes[0], changes[-1] + 2) if len(changes) else np.arange(1)


def _scaling(operator: Operator, levels: np.ndarray, table: np.ndarray, output: Tensor) -> tuple[str, Struct]:
    """The function that writes results, one row of the table per level, and its parameters."""
    short = integer.fit_short(levels, table)
    line = integer.fit(levels, table) if short is None else None
    name = f"{output.name}/channels"
    fields: dict[str, Field]
    if short is not None:
        halves = np.stack([short.multiplier, short.offset], axis=1)
        places = short.exceptions.astype(np.uint32)
        places[:, 0] += np.uint32(levels[0])
        exceptions = (
            places[:, 1] << np.uint32(17) | places[:, 0] << np.uint32(1) | np.uint32(short.exceptions[:, 2] > 0)
        )
        fields = {
            "channels": Array("uint32_t", np.concatenate([_int16_words(halves), exceptions]), name),
            "centre": short.centre,
            "shift": short.shift,
            "fraction": short.fraction,
            "exceptions": len(exceptions),
        }
        return "kbnn_write_short", Struct("kbnn_short", fields, f"{output.name}/output")
    if line is not None:
        fields = {"channels": channel_constants(name, line.multiplier, line.offset), "shift": line.shift}
        return "kbnn_write_int8", Struct("kbnn_scaled", fields, f"{output.name}/output")
    return "kbnn_write_wide", _wide(operator, levels, table, output)


def _wide(operator: Operator, levels: np.ndarray, table: np.ndarray, output: Tensor) -> Struct:
    """The parameters of results that need 64-bit arithmetic, or deviate from a line in a few places."""
    found = integer.fit_wide(levels, table)
    if found is None or len(found[1]) > _MOST_EXCEPTIONS * table.shape[1]:
        raise refused(operator, "its results do not follow a line in 64-bit arithmetic")
    line, wrong = found
    wrong = wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))]
    # The list ends with a filter number that does not exist.
    rows = [(c, levels[x], table[x, c]) for x, c in wrong.tolist()] + [(LARGEST_SIZE, 0, 0)]
    fields: dict[str, Field] = {
        "channels": channel_constants(f"{output.name}/channels", line.multiplier, line.offset),
        "exceptions": Array("kbnn_exception", np.array(rows), f"{output.name}/exceptions"),
        "shift": line.shift,
        "left": line.left,
        "low": line.low,
        "high": line.high,
    }
    return Struct("kbnn_wide", fields, f"{output.name}/output")


def _int16_words(patch: np.ndarray) -> np.ndarray:
    """Two weights per word."""
    halves = patch.astype(np.int16).view(np.uint16).astype(np.uint32).reshape(-1, 2)
    return halves[:, 0] | (halves[:, 1] << np.uint32(16))


def _write_thresholds(lowering: Lowering, accumulator: Accumulator, output: Tensor) -> None:
    item = accumulator.operator.inputs[4]
    if item is None:
        raise refused(accumulator.operator, "its thresholds are missing")
    # In LCE the output is -1 if the count is above the threshold.
    limits = np.clip(item.value().astype(np.int64) + 1, 0, min(accumulator.largest + 1, LARGEST_SIZE))
    _bconv_step(lowering, accumulator, output, "kbnn_write_bits", Array("uint16_t", limits, f"{output.name}/limits"))


def _bconv_step(
    lowering: Lowering, accumulator: Accumulator, output: Tensor, write: str, params: "Struct | Array"
) -> None:
    operator, bits = accumulator.operator, accumulator.bits
    source = bits.tensor if isinstance(bits, Signs) else bits
    kernel = operator.inputs[1].value() if operator.inputs[1] is not None else np.zeros((0, 0, 0, 0), np.int32)
    filters, height, width, _ = kernel.shape
    channels = operator.options.get("channels_in", source.channels)
    if accumulator.largest >= LARGEST_SIZE:
        raise refused(operator, f"its sums reach {accumulator.largest}")
    geometry = Geometry.of(operator, source, (height, width), (1, output.height, output.width, filters))
    if geometry.is_padded and operator.options.get("pad_values", 0) != 1:
        raise refused(operator, "it pads with zeros, which are not signs: pad with ones (pad_values=1.0)")
    in_pairs = channels <= 16 and (height, width) == (3, 3) and geometry.strides[1] <= _LONGEST_PAIR_STRIDE
    weights = _half_filters(kernel) if in_pairs else _packed_filters(kernel, channels)
    patch_words = 9 if in_pairs else weights.shape[1]
    ring_words = geometry.padded_width(source.width, output.width) * words_of(channels)
    shape = _bconv_shape(write, source, output, geometry, kernel, channels, patch_words, in_pairs)
    mask = bits.mask if isinstance(bits, Signs) else None
    masked = mask is not None and not mask.all()
    fields: dict[str, Field] = {
        "shape": shape,
        "weights": Array(str(weights.dtype) + "_t", weights.ravel(), f"{output.name}/weights"),
        "output": params,
        "zero": source.zero_point,
    }
    if mask is not None and masked:
        padded = np.pad(mask, (0, -len(mask) % 32)).astype(np.uint32).reshape(-1, 32)
        words_of_mask = (padded << np.arange(32, dtype=np.uint32)).sum(1, dtype=np.uint32)
        fields = {f"bconv.{key}": item for key, item in fields.items()}
        fields["mask"] = Array("uint32_t", words_of_mask, f"{output.name}/mask")
    lowering.add(
        Step(
            "kbnn_bconv_masked"
            if masked
            else "kbnn_bconv_of_int8"
            if isinstance(bits, Signs)
            else "kbnn_bconv_of_bits",
            Struct("kbnn_masked_params" if masked else "kbnn_bconv_params", fields, output.name),
            (source,),
            (geometry.window(buffered=True),),
            output,
            scratch=4 * (geometry.extent * ring_words + patch_words + filters * (1 + in_pairs)),
            binary_macs=output.height * output.width * filters * accumulator.largest,
        )
    )


def _bconv_shape(
    write: str,
    source: Tensor,
    output: Tensor,
    geometry: Geometry,
    kernel: np.ndarray,
    channels: int,
    patch_words: int,
    in_pairs: bool,
) -> Struct:
    """The part of a binary convolution's parameters that layers of one shape share."""
    filters, height, width, own = kernel.shape
    words = words_of(channels)
    in_rows = channels > 16 and words == own and geometry.dilations == (1, 1)
    fields: dict[str, Field] = {
        "gather": f"kbnn_gather_{'pair' if in_pairs else 'rows' if in_rows else 'any'}",
        "count": f"kbnn_count_{'pairs' if in_pairs else patch_words if patch_words in (3, 6, 9, 18) else 'any'}",
        "write": write,
        "height": source.height,
        "width": source.width,
        "channels": channels,
        "words": words,
        "groups": words // own,
        "patch_words": patch_words,
        "filters": filters,
        "out_width": output.width,
        "pixel_bytes": filters if output.kind == "int8" else 4 * words_of(filters),
        "ring_width": geometry.padded_width(source.width, output.width),
        "kernel_height": height,
        "kernel_width": width,
        **geometry.fields,
        "dilation_y": geometry.dilations[0],
        "dilation_x": geometry.dilations[1],
        "pixels": 1 + in_pairs,
        "plain": 0,
    }
    return Struct("kbnn_bconv_shape", fields, f"shape_of_{output.height}x{output.width}x{filters}")


def _half_filters(kernel: np.ndarray) -> np.ndarray:
    """Filters `(F, 3, 3, 1)` of at most 16 channels: 9 half words as triples."""
    return _triples(kernel.view(np.uint32).reshape(len(kernel), 9)).astype(np.uint16)


def _packed_filters(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Filters `(F, kh, kw, words)` as rows of triples (a ^ b, b, b ^ c); pixels of 16 bits or less share words."""
    filters = len(kernel)
    words = kernel.view(np.uint32).reshape(filters, -1)
    if channels <= 16:
        words = np.pad(words, ((0, 0), (0, words.shape[1] % 2)))
        words = words[:, ::2] | (words[:, 1::2] << np.uint32(16))
    words = np.pad(words, ((0, 0), (0, -words.shape[1] % 3)))
    return _triples(words)


def _triples(words: np.ndarray) -> np.ndarray:
    """Replaces each (a, b, c) of a row by (a ^ b, b, b ^ c)."""
    triples = words.reshape(len(words), -1, 3)
    a, b, c = triples[..., 0], triples[..., 1], triples[..., 2]
    return np.stack([a ^ b, b, b ^ c], axis=-1).reshape(len(words), -1)
