"""Convolutions, depthwise convolutions and dense layers in int8."""

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor, Window
from kbnn.converters.c.writers.lowering import Lowering, Padded, writes
from kbnn.converters.c.writers.operators import MOST_PADDING, Geometry, clipping_of, refused
from kbnn.converters.tflite.flatbuffer import Operator

# Convolutions of at most this many words expand their weights once, in RAM, instead of for every output.
_MOST_EXPANDED_WORDS = 1280


@writes("CONV_2D")
def _convolution(lowering: Lowering, operator: Operator) -> None:
    kernel, bias, scales = _weights(operator)
    count, height, width, own = kernel.shape
    source, geometry = _padded_source(lowering, operator, (height, width))
    output = lowering.output(operator)
    if own != source.channels or geometry.dilations != (1, 1):
        # TensorFlow Lite has an optimized kernel for dilation, but not for groups.
        up = count if own == source.channels else 0
        constants = _filters(operator, source, output, kernel, bias, scales)
        step = _grouped_step("kbnn_conv_grouped", operator, source, geometry, output, kernel, constants, up)
        lowering.add(step)
        return
    row_values = width * own
    # A patch takes whole words from each of its rows.
    row_words = -(-row_values // 2)
    in_groups = own % 4 == 0
    ring_words, phases = _ring(geometry, source, output, in_groups)
    patch = _in_pairs(kernel.reshape(count, height, row_values), row_words, in_groups)
    low, high = clipping_of(operator, output)
    filters = _filters(operator, source, output, kernel, bias, scales)
    fast = (low, high) == (integer.LOW, integer.HIGH) and _fits_doubled(filters, source, kernel)
    patch = np.pad(patch, ((0, 0), (0, -patch.shape[1] % 16)))
    words = _int8_words(patch)
    patch_words = patch.shape[1] // 2
    if fast:
        filters = filters * [2, 1, -1]
    expanded = count * (patch_words + 4)
    small = fast and expanded <= _MOST_EXPANDED_WORDS and np.abs(filters[:, 0]).max() < 2**26
    fields: dict[str, Field] = {
        "weights": Array("uint32_t", _framed(words.reshape(count, -1), filters, small), f"{output.name}/weights"),
        "height": source.height,
        "width": source.width,
        "channels": own,
        "count": count,
        "patch_words": patch_words,
        "row_words": row_words,
        "ring_words": ring_words,
        "out_width": output.width,
        "zero": source.zero_point,
        "out_zero": output.zero_point,
        "low": low,
        "high": high,
        "kernel_height": height,
        **geometry.fields,
        "phases": phases,
    }
    scratch = height * ring_words * phases + 4 * patch_words + (expanded if small else 0)
    lowering.add(
        Step(
            "kbnn_conv" if small else "kbnn_conv_large" if fast else "kbnn_conv_any",
            Struct("kbnn_conv_params", fields, output.name),
            (source,),
            (geometry.window(buffered=True),),
            output,
            scratch=4 * scratch,
            real_macs=output.height * output.width * kernel.size,
        )
    )


def _ring(geometry: Geometry, source: Tensor, output: Tensor, in_groups: bool) -> tuple[int, int]:
    """Words per buffered input row, and its number of copies: a second one, shifted by a value, for odd offsets."""
    values = geometry.padded_width(source.width, output.width) * source.channels
    if in_groups:
        return values // 2, 1
    odd = geometry.strides[1] * source.channels % 2 == 1
    return -(-values // 2) + 1, 2 if odd and output.width > 1 else 1


def _padded_source(lowering: Lowering, operator: Operator, kernel: tuple[int, int]) -> tuple[Tensor, Geometry]:
    """A convolution's unpadded input, and its geometry including the zeros that a separate padding layer adds."""
    value = lowering.of(operator, 0, Tensor, Padded)
    image = value.tensor if isinstance(value, Padded) else value
    geometry = Geometry.of(operator, image, kernel, operator.outputs[0].shape)
    if not isinstance(value, Padded):
        return value, geometry
    around = geometry.around(value.top, value.left)
    if max(around.padding) > MOST_PADDING:
        return lowering.tensor(operator), geometry
    return value.source, around


@writes("DEPTHWISE_CONV_2D")
def _depthwise(lowering: Lowering, operator: Operator) -> None:
    kernel, bias, scales = _weights(operator, axis=-1)
    _, height, width, count = kernel.shape
    source, geometry = _padded_source(lowering, operator, (height, width))
    output = lowering.output(operator)
    filters = np.moveaxis(kernel[0], -1, 0)[..., None]
    constants = _filters(operator, source, output, filters, bias, scales)
    # TensorFlow Lite rounds vectors of 8 filters differently from the filters that fill none.
    up = count // 8 * 8
    lowering.add(_grouped_step("kbnn_depthwise", operator, source, geometry, output, filters, constants, up))


def _grouped_step(
    kernel: str,
    operator: Operator,
    source: Tensor,
    geometry: Geometry,
    output: Tensor,
    filters: np.ndarray,
    constants: np.ndarray,
    up: int,
) -> Step:
    """A convolution whose filters `(F, kh, kw, own)` each read a group of channels; the first `up` round halves up."""
    count, height, width, own = filters.shape
    groups = source.channels // own
    if groups * own != source.channels or count % groups:
        raise refused(operator, f"it has {count} filters of {own} channels for {source.channels} channels")
    low, high = clipping_of(operator, output)
    fields: dict[str, Field] = {
        "weights": Array("int8_t", filters.swapaxes(0, 1).ravel(), f"{output.name}/weights"),
        "filters": Array("kbnn_filter", constants, f"{output.name}/filters"),
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        "groups": groups,
        "own": own,
        "times": count // groups,
        "up": up,
        "out_width": output.width,
        "zero": source.zero_point,
        "out_zero": output.zero_point,
        "low": low,
        "high": high,
        "kernel_height": height,
        "kernel_width": width,
        **geometry.fields,
        "dilation_y": geometry.dilations[0],
        "dilation_x": geometry.dilations[1],
    }
    params = Struct("kbnn_grouped_params", fields, output.name)
    macs = output.height * output.width * filters.size
    return Step(kernel, params, (source,), (geometry.window(),), output, scratch=4 * count, real_macs=macs)


@writes("FULLY_CONNECTED")
def _dense(lowering: Lowering, operator: Operator) -> None:
    source, output = lowering.tensor(operator), lowering.output(operator)
    kernel, bias, scales = _weights(operator)
    if kernel.shape[1] != source.channels or source.height * source.width != 1:
        raise refused(operator, f"it reads {source.height}x{source.width}x{source.channels} values at once")
    low, high = clipping_of(operator, output)
    folded = bias - source.zero_point * kernel.sum(1)
    filters = _filters(operator, source, output, kernel, bias, scales)
    fields: dict[str, Field] = {
        "weights": Array("int8_t", kernel.ravel(), f"{output.name}/weights"),
        "filters": Array("kbnn_filter", np.concatenate([folded[:, None], filters[:, 1:]], 1), f"{output.name}/filters"),
        "inputs": source.channels,
        "outputs": len(kernel),
        "out_zero": output.zero_point,
        "low": low,
        "high": high,
    }
    params = Struct("kbnn_dense_params", fields, output.name)
    lowering.add(Step("kbnn_dense", params, (source,), (Window(),), output, real_macs=kernel.size))


def _weights(operator: Operator, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel, bias and scales per filter of an int8 convolution or dense layer; `axis` is that of the filters."""
    kernel = operator.inputs[1]
    bias = operator.inputs[2] if len(operator.inputs) > 2 else None
    if kernel is None or kernel.data is None or kernel.dtype != "int8" or any(kernel.zero_points):
        raise refused(operator, "its kernel is not symmetric int8")
    filters = kernel.shape[axis]
    values = np.zeros(filters, np.int64) if bias is None else bias.value().astype(np.int64)
    if bias is not None and bias.dtype != "int32":
        raise refused(operator, "its bias is not int32")
    return kernel.value().astype(np.int64), values, np.broadcast_to(np.array(kernel.scales, np.float32), (filters,))


def _filters(
    operator: Operator, source: Tensor, output: Tensor, kernel: np.ndarray, bias: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Bias, multiplier and shift of each filter, `(F, 3)`."""
    low, high = _reachable(source, kernel, bias)
    largest = max(-low.min(), high.max())
    rows = np.array([integer.multiplier_of_scales((source.scale, scale), output.scale) for scale in scales.tolist()])
    if int(largest) << max(int(rows[:, 1].max()), 0) >= 2**31:
        raise refused(operator, "its sums do not fit 32 bits")
    return np.concatenate([bias[:, None], rows], axis=1)


def _reachable(source: Tensor, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest sum of each filter, including its bias."""
    lowest, highest = integer.LOW - source.zero_point, integer.HIGH - source.zero_point
    weights = kernel.reshape(len(kernel), -1)
    extremes = np.stack([weights * lowest, weights * highest])
    return extremes.min(0).sum(1) + bias, extremes.max(0).sum(1) + bias


def _fits_doubled(filters: np.ndarray, source: Tensor, kernel: np.ndarray) -> bool:
    """Whether the fast kernels can compute a convolution: they double the sums and shift only to the right."""
    low, high = _reachable(source, kernel, filters[:, 0])
    return bool(max(-low.min(), high.max()) < 2**30 and filters[:, 2].max() <= 0 and filters[:, 2].min() > -23)


def _framed(words: np.ndarray, filters: np.ndarray, small: bool) -> np.ndarray:
    """The weights of each filter between its constants; small constants share a word."""
    first, last = (filters[:, :1] << 5 | filters[:, 2:], filters[:, 1:2]) if small else (filters[:, :1], filters[:, 1:])
    columns = [first.astype(np.int32).view(np.uint32), words, last.astype(np.int32).view(np.uint32)]
    return np.concatenate(columns, axis=1).ravel()


def _in_pairs(rows: np.ndarray, row_words: int, in_groups: bool) -> np.ndarray:
    """Weights `(F, kh, values)` in the order of the patch's half words; each row of a patch takes whole words."""
    filters, height, values = rows.shape
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 2 * row_words - values)))
    if in_groups:
        padded = padded.reshape(filters, height, -1, 4)[..., [0, 2, 1, 3]]
    return padded.reshape(filters, -1)


def _int8_words(patch: np.ndarray) -> np.ndarray:
    """Four weights per word: bytes 0 and 2 are the first pair, 1 and 3 the second."""
    return _bytes_in_words(patch.reshape(-1, 4)[:, [0, 2, 1, 3]])


def _bytes_in_words(values: np.ndarray) -> np.ndarray:
    octets = values.astype(np.int8).view(np.uint8).astype(np.uint32).reshape(-1, 4)
    return (octets << np.array([0, 8, 16, 24], np.uint32)).sum(1, dtype=np.uint32)
