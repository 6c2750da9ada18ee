"""TensorFlow Lite's int8 operators and LCE's binary ones in NumPy, from their definitions, and files of them."""

import math

import numpy as np

from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor

f32 = np.float32


class Builder:
    """Makes a file operator by operator, each on the output of the one before."""

    def __init__(self, *shape, scale=0.02, zero_point=3, seed=0):
        self.random = np.random.default_rng(seed)
        self.tensors, self.operators = [], []
        self.image = self.last = self.tensor((1, *shape), "int8", None, (scale,), (zero_point,), name="image")

    def tensor(self, shape, dtype, data=None, scales=(), zero_points=(), name=""):
        values = None if data is None else np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        scales = tuple(float(f32(scale)) for scale in scales)
        found = Tensor(
            len(self.tensors), name or f"t{len(self.tensors)}", tuple(shape), dtype, values, scales, zero_points
        )
        self.tensors.append(found)
        return found

    def constant(self, data, scales=(), zero_points=()):
        data = np.asarray(data)
        return self.tensor(data.shape, str(data.dtype), data, scales, zero_points)

    def add(self, name, inputs, shape, dtype="int8", scale=0.05, zero_point=-4, **options):
        quantized = ((scale,), (zero_point,)) if dtype == "int8" else ((), ())
        output = self.tensor(shape, dtype, None, *quantized)
        self.operators.append(Operator(len(self.operators), name, tuple(inputs), (output,), options))
        self.last = output
        return output

    def file(self):
        return File(tuple(self.tensors), tuple(self.operators), {"image": self.image}, {"out": self.last}, {}, 0, b"")

    def signs(self):
        _, h, w, c = self.last.shape
        self.channels = c
        return self.add("LceQuantize", [self.last], (1, h, w, -(-c // 32)), "int32")

    def binary(
        self, filters, size=3, stride=1, dilation=1, groups=1, valid=False, bits=False, out="int8", activation=0
    ):
        """A binary convolution of the last signs."""
        source, channels = self.last, self.channels
        own = -(-channels // 32) // groups
        kernel = self.random.integers(-(2**31), 2**31, size=(filters, size, size, own)).astype(np.int32)
        if channels % 32:
            kernel[..., -1] &= np.int32((1 << (channels % 32)) - 1)
        count = size * size * channels // groups
        extent = (size - 1) * dilation + 1
        h, w = (((n - extent) // stride + 1) if valid else -(-n // stride) for n in source.shape[1:3])
        options = {
            "channels_in": channels,
            "pad_values": 1,
            "padding": int(valid),
            "stride_height": stride,
            "stride_width": stride,
            "dilation_height_factor": dilation,
            "dilation_width_factor": dilation,
            "fused_activation_function": activation,
        }
        self.channels = filters
        if bits:
            limits = self.constant(self.random.integers(count // 3, 2 * count // 3, size=filters).astype(np.int32))
            inputs = [source, self.constant(kernel), None, None, limits]
            return self.add("LceBconv2d", inputs, (1, h, w, -(-filters // 32)), "int32", **options)
        slope = self.random.uniform(0.5, 2.0, filters) * self.random.choice([-1, 1], filters) / math.sqrt(count)
        bias = self.random.normal(0, 0.5, filters)
        inputs = [
            source,
            self.constant(kernel),
            self.constant(slope.astype(f32)),
            self.constant(bias.astype(f32)),
            None,
        ]
        return self.add("LceBconv2d", inputs, (1, h, w, filters), out, scale=0.03, **options)

    def convolution(
        self, filters, size=3, stride=1, valid=False, activation=0, scale=0.06, groups=1, dilation=1, scales=None
    ):
        source = self.last
        channels = source.shape[3] // groups
        kernel = self.random.integers(-127, 128, size=(filters, size, size, channels)).astype(np.int8)
        if scales is None:
            scales = self.random.uniform(0.5, 1.0, filters) / (60 * size * math.sqrt(channels))
        bias = self.random.integers(-500, 500, filters).astype(np.int32)
        extent = (size - 1) * dilation + 1
        h, w = ((n - extent) // stride + 1 if valid else -(-n // stride) for n in source.shape[1:3])
        inputs = [source, self.constant(kernel, tuple(scales), (0,) * filters), self.constant(bias)]
        options = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
        options |= {"padding": int(valid), "fusedActivationFunction": activation}
        return self.add("CONV_2D", inputs, (1, h, w, filters), scale=scale, **options)

    def depthwise(self, size=(3, 3), stride=1, dilation=1, times=1, valid=False, activation=0, scale=0.06, scales=None):
        """A depthwise convolution with `times` filters per channel."""
        source = self.last
        filters = source.shape[3] * times
        kernel = self.random.integers(-127, 128, size=(1, *size, filters)).astype(np.int8)
        if scales is None:
            scales = self.random.uniform(0.5, 1.0, filters) / (60 * math.sqrt(math.prod(size)))
        bias = self.random.integers(-500, 500, filters).astype(np.int32)
        extents = [(k - 1) * dilation + 1 for k in size]
        sides = zip(source.shape[1:3], extents, strict=True)
        h, w = ((n - k) // stride + 1 if valid else -(-n // stride) for n, k in sides)
        inputs = [source, self.constant(kernel, tuple(scales), (0,) * filters), self.constant(bias)]
        options = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
        options |= {"padding": int(valid), "depthMultiplier": times, "fusedActivationFunction": activation}
        return self.add("DEPTHWISE_CONV_2D", inputs, (1, h, w, filters), scale=scale, **options)

    def padded(self, sides, value=None):
        """PAD with zeros, or PADV2 with an int8 value; `sides` are those of height, width and channels."""
        source = self.last
        quantization = {"scale": source.scales[0], "zero_point": source.zero_points[0]}
        shape = (1, *(n + before + after for n, (before, after) in zip(source.shape[1:], sides, strict=True)))
        inputs = [source, self.constant(np.array([(0, 0), *sides], np.int32))]
        if value is None:
            return self.add("PAD", inputs, shape, **quantization)
        inputs.append(self.tensor((), "int8", np.int8(value), source.scales, source.zero_points))
        return self.add("PADV2", inputs, shape, **quantization)

    def pool(self, kind, size, stride, valid=True, activation=0):
        source = self.last
        h, w = ((n - size) // stride + 1 if valid else -(-n // stride) for n in source.shape[1:3])
        options = {"filterHeight": size, "filterWidth": size, "strideH": stride, "strideW": stride}
        return self.add(
            kind,
            [source],
            (1, h, w, source.shape[3]),
            scale=source.scales[0],
            zero_point=source.zero_points[0],
            padding=int(valid),
            fusedActivationFunction=activation,
            **options,
        )


# ---- Arithmetic -----------------------------------------------------------------------------------------------------


def multiplier(real):
    fraction, exponent = math.frexp(real)
    quantized = math.floor(fraction * 2**31 + 0.5)
    return (quantized // 2, exponent + 1) if quantized == 2**31 else (quantized, exponent)


def _high(x, quantized, exponent):
    """SaturatingRoundingDoublingHighMul, with the division that truncates."""
    product = (np.asarray(x, np.int64) << max(exponent, 0)) * quantized
    moved = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.sign(moved) * (np.abs(moved) >> 31)


def rescale(x, real):
    """MultiplyByQuantizedMultiplier: the second rounding is to nearest, halves away from zero."""
    quantized, exponent = multiplier(real)
    high = _high(x, quantized, exponent)
    return np.sign(high) * ((np.abs(high) + ((1 << max(-exponent, 0)) >> 1)) >> max(-exponent, 0))


def rescale_up(x, real):
    """The same with halves up, as the matrix multiplications and vectors of means round."""
    quantized, exponent = multiplier(real)
    return (_high(x, quantized, exponent) + ((1 << max(-exponent, 0)) >> 1)) >> max(-exponent, 0)


def nearest(x):
    return np.sign(x) * np.floor(np.abs(x.astype(np.float64)) + 0.5)


def unpack(words, channels):
    bits = (words.astype(np.uint32)[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    return bits.reshape(*words.shape[:-1], -1)[..., :channels].astype(np.int64)


def pack(bits):
    missing = -bits.shape[-1] % 32
    padded = np.concatenate([bits, np.zeros((*bits.shape[:-1], missing), bits.dtype)], -1)
    shifted = padded.reshape(*bits.shape[:-1], -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    return shifted.sum(-1).astype(np.uint32).view(np.int32)


def _first(options, *names):
    return next((options[name] for name in names if options.get(name)), 1)


def windows(x, operator, size, fill):
    """`(B, H', W', kh, kw, C)`: what each output pixel sees."""
    options, (h, w) = operator.options, operator.outputs[0].shape[1:3]
    sh, sw = _first(options, "strideH", "stride_height"), _first(options, "strideW", "stride_width")
    dh = _first(options, "dilationHFactor", "dilation_height_factor")
    dw = _first(options, "dilationWFactor", "dilation_width_factor")
    reach = ((h - 1) * sh + (size[0] - 1) * dh + 1, (w - 1) * sw + (size[1] - 1) * dw + 1)
    before = [0 if options.get("padding") else max(r - n, 0) // 2 for r, n in zip(reach, x.shape[1:3], strict=True)]
    canvas = [max(b + n, r) for b, n, r in zip(before, x.shape[1:3], reach, strict=True)]
    padded = np.full((len(x), *canvas, x.shape[3]), fill, x.dtype)
    padded[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]] = x
    return np.stack(
        [
            np.stack(
                [
                    padded[:, i * dh : i * dh + (h - 1) * sh + 1 : sh, j * dw : j * dw + (w - 1) * sw + 1 : sw]
                    for j in range(size[1])
                ],
                3,
            )
            for i in range(size[0])
        ],
        3,
    )


# ---- Operators ------------------------------------------------------------------------------------------------------


def compute(operator, inputs):
    """The output of an operator for a batch of inputs; constants are given too, without a batch."""
    return _COMPUTE[operator.name](operator, *inputs)


def _scale(tensor):
    return np.float64(f32(tensor.scales[0]))


# What TensorFlow Lite's fused activations clip to, and its operators of the same names.
_RANGES = {0: (-np.inf, np.inf), 1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}
_RECTIFIERS = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}


def _clip(operator, values, activation=0):
    output = operator.outputs[0]
    low, high = _RANGES[activation or operator.options.get("fusedActivationFunction") or 0]
    zero = output.zero_points[0]
    low, high = (v if np.isinf(v) else zero + nearest(f32(v) / f32(output.scales[0])) for v in (low, high))
    return np.clip(values + zero, max(low, -128), min(high, 127)).astype(np.int8)


def _convolution(operator, x, kernel, bias):
    """Filters in several groups, for which there is no optimized kernel, round halves away from zero."""
    source, weights, output = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    seen = windows(x.astype(np.int64) - source.zero_points[0], operator, kernel.shape[1:3], 0)
    groups = x.shape[3] // kernel.shape[3]
    pairs = zip(np.split(seen, groups, -1), np.split(kernel.astype(np.int64), groups), strict=True)
    sums = np.concatenate([np.tensordot(a, b, axes=([3, 4, 5], [1, 2, 3])) for a, b in pairs], -1) + bias
    rule = rescale_up if groups == 1 else rescale
    scaled = [
        rule(sums[..., c], _scale(source) * np.float64(f32(weights.scales[c])) / _scale(output))
        for c in range(len(kernel))
    ]
    return _clip(operator, np.stack(scaled, -1))


def _depthwise(operator, x, kernel, bias):
    """Full vectors of 8 filters round halves up, the remaining filters away from zero."""
    source, weights, output = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    seen = windows(x.astype(np.int64) - source.zero_points[0], operator, kernel.shape[1:3], 0)
    seen = np.repeat(seen, operator.options["depthMultiplier"], axis=-1)
    sums = (seen * kernel[0].astype(np.int64)).sum((3, 4)) + bias
    reals = [_scale(source) * np.float64(f32(scale)) / _scale(output) for scale in weights.scales]
    rules = [rescale_up if c < len(reals) // 8 * 8 else rescale for c in range(len(reals))]
    scaled = [rule(sums[..., c], reals[c]) for c, rule in enumerate(rules)]
    return _clip(operator, np.stack(scaled, -1))


def _signs(operator, x):
    negative = x < operator.inputs[0].zero_points[0] if x.dtype == np.int8 else ~x
    return pack(negative.astype(np.int64))


def _binary(operator, x, kernel, slope, bias, limits):
    output, channels = operator.outputs[0], operator.options["channels_in"]
    groups = x.shape[3] // kernel.shape[3]
    own = channels // groups
    seen = windows(unpack(x, channels), operator, kernel.shape[1:3], 0)
    filters = unpack(kernel, own)
    each = len(kernel) // groups
    counts = []
    for g in range(groups):
        part, some = seen[..., g * own : (g + 1) * own], filters[g * each : (g + 1) * each]
        ones = part.sum((3, 4, 5))[..., None] + some.sum((1, 2, 3))
        counts.append(ones - 2 * np.tensordot(part, some, axes=([3, 4, 5], [1, 2, 3])))
    count, largest = np.concatenate(counts, -1), math.prod(kernel.shape[1:3]) * own
    if limits is not None:
        return pack((count > limits).astype(np.int64))
    scale, zero = (_scale(output), output.zero_points[0]) if output.dtype == "int8" else (1.0, 0)
    factor = (-slope.astype(np.float64) / scale).astype(f32)
    offset = ((bias.astype(np.float64) + largest * slope.astype(np.float64)) / scale + zero).astype(f32)
    sums = np.clip(largest - 2 * count, *_RANGES[operator.options.get("fused_activation_function") or 0])
    y = (largest - sums).astype(f32) * factor + offset
    return np.clip(nearest(y), -128, 127).astype(np.int8) if output.dtype == "int8" else y


def _add(operator, a, b):
    if operator.outputs[0].dtype == "float32":
        low, high = {0: (-np.inf, np.inf), 2: (-1, 1)}[operator.options.get("fusedActivationFunction") or 0]
        return np.clip(a + b, f32(low), f32(high))
    left, right, output = (*operator.inputs, operator.outputs[0])
    x, y = a.astype(np.int64) - left.zero_points[0], b.astype(np.int64) - right.zero_points[0]
    alone, vectors, broadcast = (added(x, y, left, right, output, rule) for rule in ("alone", "vector", "broadcast"))
    place = np.arange(math.prod(alone.shape[1:])).reshape(alone.shape[1:])
    if right.data is None:
        rest = place >= place.size // 16 * 16
    elif math.prod(right.shape) > 1:
        rest = place % place.shape[-1] >= place.shape[-1] // 16 * 16
    else:
        vectors, rest = broadcast, place >= place.size // 8 * 8
    return _clip(operator, np.where(rest, alone, vectors))


def added(x, y, left, right, output, rule):
    """The optimized ADD of values without their zero points, before the output's zero point is added.

    `rule` is "vector" for the values of a full vector, "broadcast" if one of the terms is a single value, and "alone"
    for the remaining values of an array, which the reference kernel rounds in the same way.
    """
    twice = 2 * max(_scale(left), _scale(right))
    total = 0
    for values, real in ((x, _scale(left) / twice), (y, _scale(right) / twice)):
        quantized, exponent = multiplier(real)
        total = (
            total
            + {
                "alone": lambda v=values, r=real: rescale(v << 20, r),
                "vector": lambda v=values, q=quantized, e=exponent: _high(v << (20 + e), q, 0),
                "broadcast": lambda v=values, q=quantized, e=exponent: _high(v << 20, q, 0) // 2**-e,
            }[rule]()
        )
    return rescale(total, twice / (2.0**20 * _scale(output)))


# Scales and zero points of two terms and their sum. For "ties", the code for vectors and the code for the remaining
# values differ in a few of the 65,536 pairs.
SUMS = {
    "ties": [(0.0679, -3), (0.0341, -15), (0.0392, 11)],
    "other ties": [(0.0605, 9), (0.0611, 18), (0.0478, -12)],
    "few ties": [(0.04141920059919357, 1), (0.0630820244550705, -10), (0.07039189338684082, -1)],
    "no ties": [(0.041109561920166016, 6), (0.053949858993291855, -13), (0.0630820244550705, -10)],
    "unequal": [(0.5, -100), (0.001, 90), (0.3, 0)],
    "equal": [(0.1, 0), (0.1, 0), (0.1, 0)],
}


def differing(name, rule):
    """Two levels whose sum by `rule` differs from their sum alone."""
    levels = np.arange(-128, 128)
    operator = added_constant(name, 1, np.zeros(1, np.int8)).operators[0]
    tensors = (*operator.inputs, operator.outputs[0])
    terms = levels[:, None] - tensors[0].zero_points[0], levels[None] - tensors[1].zero_points[0]
    alone, other = (_clip(operator, added(*terms, *tensors, kind)) for kind in ("alone", rule))
    return np.argwhere(alone != other)[0] - 128


def added_constant(name, height, values):
    """A constant added to an image of height x 1 x 21 values."""
    (a, b, out) = SUMS[name]
    made = Builder(height, 1, 21, scale=a[0], zero_point=a[1])
    constant = made.constant(values, (b[0],), (b[1],))
    made.add("ADD", [made.image, constant], (1, height, 1, 21), scale=out[0], zero_point=out[1])
    return made


def _single(factors, output):
    """A multiplier that TensorFlow Lite computes in float32."""
    return float(np.prod(np.float32(factors), dtype=np.float32) / f32(output.scales[0]))


def _prelu(operator, x, slope):
    source, slopes, output = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    moved = x.astype(np.int64) - source.zero_points[0]
    positive = rescale(moved, _single(source.scales, output))
    negative = rescale(
        moved * (slope.astype(np.int64) - slopes.zero_points[0]), _single([*source.scales, *slopes.scales], output)
    )
    return _clip(operator, np.where(moved >= 0, positive, negative))


def _rectified(operator, x):
    source, output = operator.inputs[0], operator.outputs[0]
    activation = _RECTIFIERS[operator.name]
    if output.dtype == "float32":
        return np.clip(x, *f32(_RANGES[activation]))
    moved = x.astype(np.int64) - source.zero_points[0]
    return _clip(operator, rescale(moved, _single(source.scales, output)), activation)


def _leaky(operator, x):
    source, output = operator.inputs[0], operator.outputs[0]
    moved = x.astype(np.int64) - source.zero_points[0]
    positive = rescale(moved, _single(source.scales, output))
    negative = rescale(moved, _single([*source.scales, operator.options["alpha"]], output))
    return _clip(operator, np.where(moved >= 0, positive, negative))


def _multiply(operator, x, y):
    if operator.outputs[0].dtype == "float32":
        return x * y
    left, right, output = (*operator.inputs, operator.outputs[0])
    product = (x.astype(np.int64) - left.zero_points[0]) * (y.astype(np.int64) - right.zero_points[0])
    return _clip(operator, rescale(product, _single([*left.scales, *right.scales], output)))


def _average(operator, x):
    size = (operator.options["filterHeight"], operator.options["filterWidth"])
    sums = windows(x.astype(np.int64), operator, size, 0).sum((3, 4))
    count = windows(np.ones_like(x, np.int64), operator, size, 0).sum((3, 4))
    mean = np.sign(sums) * ((np.abs(sums) + count // 2) // count)
    return _clip(operator, mean - operator.outputs[0].zero_points[0])


def _maximum(operator, x):
    size = (operator.options["filterHeight"], operator.options["filterWidth"])
    largest = windows(x.astype(np.int64), operator, size, -128).max((3, 4))
    return _clip(operator, largest - operator.outputs[0].zero_points[0])


def _maximum_sign(operator, x):
    size = (operator.options["filter_height"], operator.options["filter_width"])
    return pack(windows(unpack(x, 32 * x.shape[3]), operator, size, 1).min((3, 4)))


def _float_mean(operator, x, axes):
    """Summed in order, in single precision."""
    over = (1, 2) if len(np.atleast_1d(axes)) == 2 else (3,)
    values = np.moveaxis(x.reshape(len(x), -1, x.shape[3]), 1, 0) if over == (1, 2) else np.moveaxis(x, 3, 0)
    total = np.zeros_like(values[0])
    for value in values:
        total = total + value
    return (total / f32(len(values))).reshape(-1, *operator.outputs[0].shape[1:])


def _mean(operator, x, axes):
    if operator.outputs[0].dtype == "float32":
        return _float_mean(operator, x, axes)
    source, output = operator.inputs[0], operator.outputs[0]
    is_image = x.ndim == 4
    x = x.reshape(len(x), -1, 1, x.shape[-1])
    count = x.shape[1]
    if operator.options.get("keepDims") and is_image:
        return _kept_mean(operator, x.astype(np.int64).sum((1, 2)), count)
    quantized, exponent = multiplier(_scale(source) / _scale(output))
    spare = min(count.bit_length() - 1, 32, 31 + exponent)
    sums = x.astype(np.int64).sum((1, 2)) - count * source.zero_points[0]
    high = _high(sums, (quantized << spare) // count, exponent - spare)
    right = max(spare - exponent, 0)
    result = np.sign(high) * ((np.abs(high) + ((1 << right) >> 1)) >> right)
    return _clip(operator, result).reshape(-1, *output.shape[1:])


def _kept_mean(operator, sums, count):
    """The optimized kernel for means that keep their axes, in single precision; vectors round halves up."""
    source, output = operator.inputs[0], operator.outputs[0]
    scale, out_scale = f32(source.scales[0]), f32(output.scales[0])
    zero = f32(source.zero_points[0]) * scale / out_scale
    moved = int(zero + f32(0.5) if zero > 0 else zero - f32(0.5))
    real = float(scale / (f32(count) * out_scale))
    in_vectors = np.arange(sums.shape[1]) < sums.shape[1] // 16 * 16
    result = np.where(in_vectors, rescale_up(sums, real), rescale(sums, real)) - moved
    return _clip(operator, result).reshape(-1, *output.shape[1:])


def _dense(operator, x, kernel, bias=None):
    source, weights, output = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    moved = x.reshape(len(x), -1).astype(np.int64) - source.zero_points[0]
    sums = moved @ kernel.astype(np.int64).T + (0 if bias is None else bias)
    return _clip(operator, rescale_up(sums, _scale(source) * _scale(weights) / _scale(output)))


def _in_a_table(function):
    """An operator that the interpreter computes in single precision once, for all 256 levels."""

    def apply(operator, x):
        source, output = operator.inputs[0], operator.outputs[0]
        values = function(np.float64(f32(source.scales[0]) * f32(x.astype(np.int64) - source.zero_points[0])))
        moved = nearest(f32(values) * (f32(1) / f32(output.scales[0]))) + output.zero_points[0]
        return np.clip(moved, -128, 127).astype(np.int8)

    return apply


def _requantize(operator, x):
    """Full vectors of 16 values round halves up, the remaining values away from zero."""
    source, output = operator.inputs[0], operator.outputs[0]
    real = _scale(source) / _scale(output)
    moved = x.astype(np.int64) - source.zero_points[0]
    result = np.where(_in_vectors(x, 16), rescale_up(moved, real), rescale(moved, real)) + output.zero_points[0]
    return np.clip(result, -128, 127).astype(np.int8)


def _in_vectors(x, size):
    """Whether each value is in a whole vector of `size` values."""
    place = np.arange(math.prod(x.shape[1:])).reshape(x.shape[1:])
    return place < place.size // size * size


def _quantize(operator, x):
    """Vectors of 8 values multiply by the inverse and round halves to even; other values are divided in double."""
    output = operator.outputs[0]
    if x.dtype == np.int8:
        return _requantize(operator, x)
    scale = f32(output.scales[0])
    levels = np.where(_in_vectors(x, 8), np.rint(x * (f32(1) / scale)), nearest(np.float64(x) / np.float64(scale)))
    return np.clip(levels + output.zero_points[0], -128, 127).astype(np.int8)


def _dequantize(operator, x):
    """Vectors of 8 values subtract after the multiplication."""
    source = operator.inputs[0]
    scale, zero = f32(source.scales[0]), source.zero_points[0]
    return np.where(
        _in_vectors(x, 8), x.astype(f32) * scale - f32(zero) * scale, f32(x.astype(np.int64) - zero) * scale
    )


def _subtract(operator, a, b):
    """Value by value, without vectors."""
    if operator.outputs[0].dtype == "float32":
        return a - b
    left, right, output = (*operator.inputs, operator.outputs[0])
    x, y = a.astype(np.int64) - left.zero_points[0], b.astype(np.int64) - right.zero_points[0]
    return _clip(operator, added(x, -y, left, right, output, "alone"))


def _softmax(operator, x):
    """From a table of exp(-k·scale); sums are taken in order, in single precision."""
    source, output = operator.inputs[0], operator.outputs[0]
    powers = np.exp(np.float64(-f32(source.scales[0]) * np.arange(256, dtype=f32))).astype(f32)
    below = x.max(-1, keepdims=True).astype(np.int64) - x
    total = np.zeros_like(below[..., :1], f32)
    for k in range(x.shape[-1]):
        total = total + powers[below[..., k : k + 1]]
    levels = nearest(powers[below] * (f32(1) / (total * f32(output.scales[0])))) + output.zero_points[0]
    return np.clip(levels, -128, 127).astype(np.int8)


def _slice(operator, x, begin, end, steps):
    index = [slice(*bounds) for bounds in zip(begin.tolist(), end.tolist(), steps.tolist(), strict=True)]
    return x[(slice(None), *index[1:])]


def _space_to_depth(operator, x):
    size = operator.options["blockSize"]
    return np.concatenate([x[:, i::size, j::size] for i in range(size) for j in range(size)], -1)


def _depth_to_space(operator, x):
    size, (_, height, width, channels) = operator.options["blockSize"], operator.outputs[0].shape
    made = np.zeros((len(x), height, width, channels), x.dtype)
    for k in range(size * size):
        made[:, k // size :: size, k % size :: size] = x[..., k * channels : (k + 1) * channels]
    return made


def _nearest_pixels(operator, x, size):
    """The pixel whose centre is nearest."""
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, x.shape[1:3], strict=True)
    )
    return x[:, rows][:, :, columns]


def _pad(operator, x, sides, value=None):
    zero = operator.inputs[0].zero_points[0] if value is None else value
    return np.pad(x, [(0, 0), *map(tuple, sides[1:])], constant_values=zero)


_COMPUTE = {
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "CONV_2D": _convolution,
    "LceQuantize": _signs,
    "LceDequantize": lambda operator, x: unpack(x, operator.outputs[0].shape[-1]) == 0,
    "LceBconv2d": _binary,
    "LceBMaxPool2d": _maximum_sign,
    "ADD": _add,
    "SUB": _subtract,
    "ELU": lambda operator, x: np.where(x < 0, np.expm1(np.float64(np.minimum(x, 0))), x).astype(f32),
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _slice,
    "SPACE_TO_DEPTH": _space_to_depth,
    "DEPTH_TO_SPACE": _depth_to_space,
    "RESIZE_NEAREST_NEIGHBOR": _nearest_pixels,
    "RSQRT": lambda operator, x: f32(1) / np.sqrt(x),
    "LEAKY_RELU": _leaky,
    "MAXIMUM": lambda operator, x, y: np.maximum(x, y),
    "MUL": _multiply,
    **dict.fromkeys(_RECTIFIERS, _rectified),
    "PRELU": _prelu,
    "AVERAGE_POOL_2D": _average,
    "MAX_POOL_2D": _maximum,
    "MEAN": _mean,
    "FULLY_CONNECTED": _dense,
    "CONCATENATION": lambda operator, *x: np.concatenate(x, -1),
    "PAD": _pad,
    "PADV2": _pad,
    "DEPTHWISE_CONV_2D": _depthwise,
    "LOGISTIC": _in_a_table(lambda x: 1 / (1 + f32(np.exp(-x)))),
    "TANH": _in_a_table(np.tanh),
    "MINIMUM": lambda operator, x, y: np.minimum(x, y),
    "REDUCE_MAX": lambda operator, x, axes: x.max(tuple(range(1, x.ndim - 1))).reshape(
        -1, *operator.outputs[0].shape[1:]
    ),
    "RESHAPE": lambda operator, x, shape=None: x.reshape(-1, *operator.outputs[0].shape[1:]),
    "TRANSPOSE": lambda operator, x, axes: x.transpose(axes),
    "SPLIT": lambda operator, axis, x: tuple(np.split(x, operator.options["numSplits"], -1)),
}


def run(file, images):
    """The value of every tensor of a file for int8 images, by index."""
    (given,) = file.inputs.values()
    values = {given.index: images}
    for operator in file.operators:
        inputs = [None if t is None else t.value() if t.data is not None else values[t.index] for t in operator.inputs]
        outputs = compute(operator, inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        values |= {tensor.index: value for tensor, value in zip(operator.outputs, outputs, strict=True)}
    return values
