"""Every kernel alone, in C under sanitizers, against TensorFlow Lite's and LCE's definitions in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from compiled import binary, check
from operators import SUMS, Builder, added_constant, differing, f32

from kbnn.converters.c import plan, source, writers
from kbnn.converters.errors import ConversionError
from kbnn.converters.tflite.flatbuffer import Operator
from kbnn.errors import KbnnError


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 17, 32, 40, 64, 96, 128])
def test_binary_convolution_of_any_number_of_channels(channels, compiler):
    assert check(compiler, binary((5, 6, channels), {"filters": 5})) == {"kbnn_bconv_of_int8"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        {"size": 1},
        {"size": 1, "stride": 2},
        {"size": 2},
        {"size": 3, "stride": 2},
        {"size": 5, "stride": 3},
        {"size": 3, "dilation": 2},
        {"size": 3, "valid": True},
        {"size": 3, "stride": 2, "valid": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [16, 64])
def test_binary_convolution_of_any_geometry(layer, channels, compiler):
    check(compiler, binary((7, 9, channels), {"filters": 33, **layer}))


def test_grouped_binary_convolution(compiler):
    check(compiler, binary((5, 5, 64), {"filters": 6, "groups": 2}))


def test_bits_go_from_convolution_to_convolution_and_pool(compiler):
    builder = Builder(8, 8, 32)
    builder.signs()
    builder.binary(40, bits=True)
    pooled = {"filter_height": 3, "filter_width": 3, "stride_height": 2, "stride_width": 2, "padding": 0}
    builder.add("LceBMaxPool2d", [builder.last], (1, 4, 4, 2), "int32", **pooled)
    builder.binary(16, bits=True)
    builder.binary(7)
    assert check(compiler, builder) == {"kbnn_bconv_of_int8", "kbnn_bconv_of_bits", "kbnn_max_pool_bits"}


def test_results_that_linear_constants_in_32_bits_cannot_give(compiler):
    builder = Builder(1, 1, 1024, zero_point=0)
    builder.signs()
    builder.binary(64, size=1, valid=True)
    rng = np.random.default_rng(0)
    slope = rng.uniform(0.02, 0.03, 64).astype(f32)
    operator = builder.operators[-1]
    tensors = [*operator.inputs]
    tensors[2] = builder.constant(slope)
    builder.operators[-1] = type(operator)(1, "LceBconv2d", tuple(tensors), operator.outputs, operator.options)
    assert check(compiler, builder, batch=50) == {"kbnn_bconv_of_int8"}


def test_single_sums_that_linear_constants_in_16_bits_miss(compiler):
    builder = Builder(12, 12, 64)
    builder.signs()
    builder.binary(64)
    (step,) = writers.write(builder.file()).steps
    output = step.params.fields["output"]
    assert step.params.fields["shape"].fields["write"] == "kbnn_write_short"
    assert 0 < output.fields["exceptions"] <= 32
    sums, filters = np.array([(e >> 1 & 0xFFFF, e >> 17) for e in output.fields["channels"].values[64:]]).T
    assert sums.max() <= 576
    assert filters.max() < 64
    check(compiler, builder, batch=20)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 20])
@pytest.mark.parametrize(
    "geometry", [{"size": 1}, {"size": 3}, {"size": 3, "stride": 2}, {"size": 2, "valid": True}], ids=str
)
def test_convolution_in_int8(channels, geometry, compiler):
    builder = Builder(6, 7, channels)
    builder.convolution(5, **geometry)
    assert check(compiler, builder) == {"kbnn_conv"}


def test_convolution_in_int8_clips_and_amplifies(compiler):
    builder = Builder(5, 5, 3)
    builder.convolution(4, activation=1)
    builder.convolution(4, scale=1e-4)
    assert check(compiler, builder) == {"kbnn_conv_any"}


@pytest.mark.parametrize(
    "geometry",
    [
        {"groups": 3},
        {"groups": 6, "stride": 2, "activation": 3},
        {"dilation": 2},
        {"dilation": 3, "valid": True, "size": 2},
        {"groups": 2, "dilation": 2, "stride": 2},
    ],
    ids=str,
)
def test_convolution_in_int8_with_groups_and_dilation(geometry, compiler):
    builder = Builder(7, 9, 6)
    builder.convolution(12, **geometry)
    assert check(compiler, builder) == {"kbnn_conv_grouped"}


@pytest.mark.parametrize("geometry", [{"groups": 3}, {"dilation": 2}], ids=str)
def test_groups_round_ties_differently_from_dilation(geometry, compiler):
    builder = Builder(5, 5, 6, scale=0.5)
    builder.convolution(12, scale=0.5, scales=[2.0 ** (-6 - k % 3) for k in range(12)], **geometry)
    check(compiler, builder, batch=20)


def geometry_of(seed):
    """A random image and depthwise convolution: any kernel, stride, dilation, padding and number of filters."""
    random = np.random.default_rng(seed)
    height, width, kernel = (int(n) for n in random.integers(1, 11, 3))
    size = (int(random.integers(1, 6)), int(random.integers(1, 6)))
    dilation = int(random.integers(1, 3)) if seed % 3 == 0 else 1
    valid = all((k - 1) * dilation < n for k, n in zip(size, (height, width), strict=True)) and seed % 2 == 0
    given = {"stride": int(random.integers(1, 4)), "dilation": dilation, "times": int(random.integers(1, 4))}
    return (height, width, kernel), {"size": size, "valid": valid, "activation": seed % 4, **given}


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 24))])
def test_depthwise_convolution(seed, compiler):
    shape, geometry = geometry_of(seed)
    builder = Builder(*shape, zero_point=int(np.random.default_rng(seed).integers(-128, 128)))
    builder.depthwise(**geometry)
    assert check(compiler, builder, batch=5) == {"kbnn_depthwise"}


def test_depthwise_convolution_rounds_filters_that_fill_no_vector_differently(compiler):
    builder = Builder(5, 5, 13, scale=0.5)
    builder.depthwise(scale=0.5, scales=[2.0 ** (-6 - k % 3) for k in range(13)])
    check(compiler, builder, batch=20)


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, 3, -128])
def test_a_border_around_an_image(value, compiler):
    """Zeros are left to the convolution that reads them; other values, and other readers, need the border itself."""
    readers = {
        "kbnn_conv": lambda made: made.convolution(4, valid=True, stride=2),
        "kbnn_depthwise": lambda made: made.depthwise(valid=True),
        "kbnn_max_pool": lambda made: made.pool("MAX_POOL_2D", 2, 2),
    }
    for kernel, reader in readers.items():
        builder = Builder(5, 6, 3)
        builder.padded([(2, 1), (1, 3), (0, 0)], value)
        reader(builder)
        is_taken_over = value in (None, 3) and kernel != "kbnn_max_pool"
        assert check(compiler, builder) == ({kernel} if is_taken_over else {kernel, "kbnn_pad"})


def test_a_border_and_channels_around_an_image(compiler):
    builder = Builder(3, 4, 5)
    builder.padded([(1, 0), (0, 2), (1, 2)], -100)
    builder.padded([(0, 0), (0, 0), (0, 0)])
    builder.padded([(0, 0), (2, 1), (1, 0)])
    assert check(compiler, builder) == {"kbnn_channels", "kbnn_pad"}


def test_a_padded_convolution_on_a_padded_image(compiler):
    builder = Builder(6, 5, 4)
    builder.padded([(3, 2), (0, 1), (0, 0)])
    builder.convolution(5, size=5)
    assert check(compiler, builder) == {"kbnn_conv"}
    builder = Builder(3, 4, 2)
    builder.padded([(255, 0), (255, 0), (0, 0)])
    builder.convolution(3)
    assert check(compiler, builder, batch=1) == {"kbnn_pad", "kbnn_conv"}


# The shape of a value that an image of 5x6x7 values is multiplied with.
@pytest.mark.parametrize("other", [(5, 6, 7), (1, 1, 7), (5, 6, 1), (1, 1, 1), (5, 1, 7), (1, 6, 1)], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_products_of_two_values(other, first, compiler):
    """The other value is a part of the image, pooled to its size."""
    builder = Builder(5, 6, 7)
    sizes = [n if m == 1 else 1 for n, m in zip((5, 6), other[:2], strict=True)]
    pooled = builder.add(
        "MAX_POOL_2D",
        [builder.image],
        (1, *other[:2], 7),
        scale=0.02,
        zero_point=3,
        padding=1,
        filterHeight=sizes[0],
        filterWidth=sizes[1],
        strideH=1,
        strideW=1,
    )
    gate = builder.convolution(other[2], size=1)
    pair = [builder.image, gate] if first else [gate, builder.image]
    builder.add("MUL", pair, (1, 5, 6, 7), scale=0.05, fusedActivationFunction=int(first))
    assert pooled.shape[1:3] == other[:2]
    assert "kbnn_multiply" in check(compiler, builder, batch=10)


def test_squares_and_products_of_ties(compiler):
    builder = Builder(4, 4, 5, scale=0.25)
    builder.add("MUL", [builder.image, builder.image], (1, 4, 4, 5), scale=2.0)
    assert check(compiler, builder, batch=10) == {"kbnn_multiply"}


def test_squeeze_and_excite(compiler):
    """A gate per channel, computed from the whole image, between a binary convolution and a sum."""
    builder = binary((6, 6, 16), {"filters": 16})
    image = builder.last
    axes = builder.constant(np.array([1, 2], np.int32))
    builder.add("MEAN", [image, axes], (1, 1, 1, 16), scale=0.02, keepDims=True)
    builder.convolution(4, size=1, activation=1)
    builder.convolution(16, size=1)
    builder.add("LOGISTIC", [builder.last], (1, 1, 1, 16), scale=1 / 256, zero_point=-128)
    gate = builder.add("QUANTIZE", [builder.last], (1, 1, 1, 16), scale=0.0031, zero_point=-128)
    builder.add("MUL", [image, gate], (1, 6, 6, 16), scale=0.04)
    builder.add("ADD", [builder.last, builder.image], (1, 6, 6, 16))
    assert {"kbnn_multiply", "kbnn_table"} <= check(compiler, builder, batch=10)


@pytest.mark.parametrize(("name", "scale", "zero_point"), [("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)])
@pytest.mark.parametrize("source", [0.013, 0.31])
def test_sigmoid_and_tanh(name, scale, zero_point, source, compiler):
    builder = Builder(4, 5, 6, scale=source)
    builder.add(name, [builder.last], (1, 4, 5, 6), scale=scale, zero_point=zero_point)
    builder.add("QUANTIZE", [builder.last], (1, 4, 5, 6), scale=scale * 0.7, zero_point=zero_point)
    assert check(compiler, builder, batch=20) == {"kbnn_table"}


def test_requantization(compiler):
    """Vectors of 16 values are rounded differently from other values, which matters for ties only."""
    levels = np.arange(-128, 128).reshape(1, 16, 16, 1)
    for scale in (0.31, 0.11, 4.0):
        builder = Builder(16, 16, 1, scale=0.5)
        builder.add("QUANTIZE", [builder.last], (1, 16, 16, 1), scale=scale, zero_point=-9)
        check(compiler, builder, images=levels)
    for shape, kernel in [((1, 3, 5), "kbnn_table"), ((1, 3, 7), "kbnn_with_rest"), ((7, 1, 3), "kbnn_with_rest")]:
        builder = Builder(*shape, scale=0.5)
        builder.add("QUANTIZE", [builder.last], (1, *shape), scale=4.0)
        assert check(compiler, builder, batch=20) <= {kernel, "kbnn_affine"}
        assert kernel == "kbnn_table" or kernel in {step.kernel for step in writers.write(builder.file()).steps}


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 7), (5, 1, 3), (4, 4, 8)], ids=str)
def test_float_functions_of_values_that_fill_no_vector(shape, compiler):
    """Halves go to even in vectors of 8 values, away from zero for the last ones."""
    builder = Builder(*shape, scale=0.1, zero_point=17)
    builder.add("DEQUANTIZE", [builder.last], (1, *shape), "float32")
    builder.add("MUL", [builder.last, builder.constant(np.ones(shape[2], f32))], (1, *shape), "float32")
    builder.add("QUANTIZE", [builder.last], (1, *shape), scale=0.2, zero_point=-9)
    images = np.broadcast_to(np.arange(-128, 128).reshape(256, 1, 1, 1), (256, *shape))
    kernels = check(compiler, builder, images=images)
    assert ("kbnn_with_rest" in kernels) == (shape in [(1, 3, 7), (5, 1, 3)])


def test_elu(compiler):
    builder = Builder(16, 16, 1, scale=0.031, zero_point=40)
    builder.add("DEQUANTIZE", [builder.last], (1, 16, 16, 1), "float32")
    builder.add("ELU", [builder.last], (1, 16, 16, 1), "float32")
    builder.add("QUANTIZE", [builder.last], (1, 16, 16, 1), scale=0.021, zero_point=-50)
    check(compiler, builder, images=np.arange(-128, 128).reshape(1, 16, 16, 1))


@pytest.mark.parametrize(("shape", "scale"), [((10,), 0.1), ((3,), 0.7), ((5, 100), 0.02), ((3, 4, 7), 0.3)])
def test_softmax(shape, scale, compiler):
    builder = Builder(*shape, scale=scale)
    builder.add("SOFTMAX", [builder.last], (1, *shape), scale=1 / 256, zero_point=-128, beta=1.0)
    assert check(compiler, builder, batch=50) == {"kbnn_softmax"}


@pytest.mark.parametrize("name", ["MAXIMUM", "MINIMUM"])
def test_the_larger_and_the_smaller_of_two_values(name, compiler):
    builder = Builder(4, 5, 6)
    other = builder.convolution(6, scale=0.02)
    moved = builder.add("QUANTIZE", [other], (1, 4, 5, 6), scale=0.02, zero_point=3)
    builder.add(name, [builder.image, moved], (1, 4, 5, 6), scale=0.02, zero_point=3)
    assert f"kbnn_{name.lower()}" in check(compiler, builder)


@pytest.mark.parametrize("name", SUMS)
def test_difference(name, compiler):
    """The same 65,536 pairs as for sums: all values of an image minus all of its transposed copy."""
    (scale, zero_point), (other_scale, other_zero_point), (out_scale, out_zero_point) = SUMS[name]
    builder = Builder(256, 256, 1, scale=scale, zero_point=zero_point)
    order = builder.constant(np.array([0, 2, 1, 3], np.int32))
    same = {"scale": scale, "zero_point": zero_point}
    turned = builder.add("TRANSPOSE", [builder.image, order], (1, 256, 256, 1), **same)
    one = builder.constant(np.ones(1, np.int8), (other_scale / scale,), (0,))
    other = builder.add("MUL", [turned, one], (1, 256, 256, 1), scale=other_scale, zero_point=other_zero_point)
    builder.add("SUB", [builder.image, other], (1, 256, 256, 1), scale=out_scale, zero_point=out_zero_point)
    levels = np.arange(-128, 128)
    images = np.broadcast_to(levels[None, :, None, None], (1, 256, 256, 1))
    assert "kbnn_rearrange" in check(compiler, builder, images=images)


def test_bounds_in_int8_and_in_float(compiler):
    builder = Builder(4, 4, 6)
    same = {"scale": 0.02, "zero_point": 3}
    for name, level in (("MINIMUM", 40), ("MAXIMUM", -30)):
        bound = builder.constant(np.array([level], np.int8), (0.02,), (3,))
        builder.add(name, [builder.last, bound], (1, 4, 4, 6), **same)
    builder.add("DEQUANTIZE", [builder.last], (1, 4, 4, 6), "float32")
    builder.add("MINIMUM", [builder.last, builder.constant(f32(0.3))], (1, 4, 4, 6), "float32")
    builder.add("QUANTIZE", [builder.last], (1, 4, 4, 6), scale=0.004, zero_point=-1)
    assert check(compiler, builder, batch=20) <= {"kbnn_affine", "kbnn_table"}


def test_global_max_pooling(compiler):
    builder = Builder(5, 7, 9)
    axes = builder.constant(np.array([1, 2], np.int32))
    builder.add("REDUCE_MAX", [builder.last, axes], (1, 9), scale=0.02, zero_point=3)
    assert check(compiler, builder) == {"kbnn_max_pool"}


@pytest.mark.parametrize("scales", [(0.02, 0.03, 0.04), (0.5, 0.001, 0.3), (0.1, 0.1, 0.1), (0.0173, 0.0171, 0.0111)])
def test_sum(scales, compiler):
    builder = Builder(16, 16, 16, scale=scales[0])
    other = builder.convolution(16, size=1, scale=scales[1])
    builder.add("ADD", [builder.image, other], (1, 16, 16, 16), scale=scales[2], zero_point=-9)
    check(compiler, builder, batch=20)


def test_sum_with_an_activation(compiler):
    builder = Builder(8, 8, 4)
    other = builder.convolution(4, size=1)
    builder.add("ADD", [other, builder.image], (1, 8, 8, 4), fusedActivationFunction=1)
    assert "kbnn_add_exact" in check(compiler, builder)


@pytest.mark.parametrize("name", ["ties", "other ties"])
def test_sum_of_values_that_fill_no_vector(name, compiler):
    """21 values: TensorFlow Lite rounds the last 5 differently."""
    (scale, zero_point), (other_scale, other_zero_point), (out_scale, out_zero_point) = SUMS[name]
    builder = Builder(1, 3, 14, scale=scale, zero_point=zero_point)
    parts = [builder.tensor((1, 1, 3, 7), "int8", None, (scale,), (zero_point,)) for _ in range(2)]
    axis = builder.constant(np.array(3, np.int32))
    builder.operators.append(Operator(0, "SPLIT", (axis, builder.image), tuple(parts), {"numSplits": 2}))
    one = builder.constant(np.ones(7, np.int8), (other_scale / scale,), (0,))
    moved = {"scale": other_scale, "zero_point": other_zero_point}
    other = builder.add("MUL", [parts[1], one], (1, 1, 3, 7), **moved)
    builder.add("ADD", [parts[0], other], (1, 1, 3, 7), scale=out_scale, zero_point=out_zero_point)
    a, b = differing(name, "vector")
    images = np.full((1, 1, 3, 14), a)
    images[..., 7:] = b - other_zero_point + zero_point
    assert "kbnn_add_exact" in check(compiler, builder, images=images)
    check(compiler, builder, batch=20)


@pytest.mark.parametrize("name", ["ties", "other ties"])
def test_sum_with_a_constant(name, compiler):
    level, value = differing(name, "vector")
    check(compiler, added_constant(name, 3, np.full(21, value, np.int8)), images=np.full((1, 3, 1, 21), level))
    level, value = differing(name, "broadcast")
    check(compiler, added_constant(name, 8, np.full(1, value, np.int8)), images=np.full((1, 8, 1, 21), level))
    odd = added_constant(name, 3, np.full(1, value, np.int8))
    assert check(compiler, odd, images=np.full((1, 3, 1, 21), level)) == {"kbnn_with_rest"}


@pytest.mark.slow
@pytest.mark.parametrize("slopes", [(0.25, 0.1), (-0.5, 1.5)])
@pytest.mark.parametrize("scale", [0.003, 0.017, 0.11])
@pytest.mark.parametrize(("zero_point", "kernels"), [(0, {"kbnn_prelu"}), (-20, {"kbnn_affine", "kbnn_table"})])
def test_prelu(slopes, scale, zero_point, kernels, compiler):
    builder = Builder(16, 16, 6)
    values = np.linspace(*slopes, 6)
    quantized = np.round(values / (np.abs(values).max() / 127)).astype(np.int8)
    slope = builder.constant(quantized.reshape(1, 1, 6), (np.abs(values).max() / 127,), (zero_point,))
    builder.add("PRELU", [builder.last, slope], (1, 16, 16, 6), scale=scale, zero_point=-50)
    assert check(compiler, builder, batch=10) <= kernels


def test_prelu_as_a_maximum_and_leaky_relu(compiler):
    builder = Builder(8, 8, 6)
    same = {"scale": 0.02, "zero_point": 3}
    slope = builder.constant(np.arange(20, 140, 20).astype(np.int8), (1 / 127,), (0,))
    scaled = builder.add("MUL", [builder.image, slope], (1, 8, 8, 6), **same)
    builder.add("MAXIMUM", [builder.image, scaled], (1, 8, 8, 6), **same)
    builder.add("LEAKY_RELU", [builder.last], (1, 8, 8, 6), scale=0.017, zero_point=-60, alpha=0.1)
    assert check(compiler, builder) <= {"kbnn_affine", "kbnn_table"}


@pytest.mark.parametrize("name", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_rectifiers_in_int8(name, compiler):
    builder = Builder(8, 8, 6, scale=0.07, zero_point=-11)
    builder.add(name, [builder.image], (1, 8, 8, 6), scale=0.0423, zero_point=-20)
    assert check(compiler, builder) <= {"kbnn_affine", "kbnn_table"}


@pytest.mark.parametrize("activation", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5, 6, 32), (5, 6, 7), (1, 1, 1024)], ids=str)
def test_an_activation_fused_into_a_binary_convolution(shape, activation, compiler):
    """Like QuickNet's: the sum of signs is rectified, and then batch normalization is applied."""
    builder = binary(shape, {"filters": 12, "size": 3 if shape[0] > 1 else 1, "activation": activation})
    assert check(compiler, builder, batch=20) == {"kbnn_bconv_of_int8"}


def test_layers_may_have_names_that_c_uses(compiler):
    builder = Builder(4, 4, 8)
    for name in ("return", "steps", "scores", "image", "int8_t", "kbnn_conv", "größe", "EOF", "y1", 70 * "a" + "1"):
        builder.convolution(8, size=1)
        operator = builder.operators[-1]
        builder.last = replace(builder.last, name=name)
        builder.tensors[builder.last.index] = builder.last
        builder.operators[-1] = replace(operator, outputs=(builder.last,))
    check(compiler, builder)


def test_numbers_too_large_for_a_kernels_fields_are_refused():
    builder = Builder(1, 1100, 60, scale=0.02)
    other = builder.convolution(60, size=1, scale=0.03)
    builder.add("ADD", [builder.image, other], (1, 1, 1100, 60))
    network = writers.write(builder.file())
    with pytest.raises(ConversionError, match=r"'t4' has .*: the field 'values' holds 0 to 65535, received 66000"):
        source.program(network, plan.plan(network.steps))


def test_constants_per_channel_in_int8_and_in_float(compiler):
    builder = Builder(8, 8, 6)
    shift = builder.constant(np.arange(-60, 60, 20).astype(np.int8), (0.01,), (5,))
    builder.add("ADD", [builder.last, shift], (1, 8, 8, 6), scale=0.021, zero_point=0)
    builder.add("DEQUANTIZE", [builder.last], (1, 8, 8, 6), "float32")
    builder.add("MUL", [builder.last, builder.constant(np.linspace(-1, 2, 6).astype(f32))], (1, 8, 8, 6), "float32")
    shift = builder.constant(np.linspace(-0.3, 0.3, 6).astype(f32))
    builder.add("ADD", [builder.last, shift], (1, 8, 8, 6), "float32", fusedActivationFunction=2)
    builder.add("QUANTIZE", [builder.last], (1, 8, 8, 6), scale=2 / 255, zero_point=0)
    assert check(compiler, builder) <= {"kbnn_affine", "kbnn_table"}


@pytest.mark.parametrize(("scaled", "shifted"), [(True, False), (False, False), (True, True)])
def test_layer_normalization_rounds_as_the_interpreter_does(scaled, shifted, compiler):
    builder = Builder(6, 8, 16, zero_point=-20)
    whole, pixel, one = (1, 6, 8, 16), (1, 1, 1, 16), (1, 1, 1, 1)
    over = [builder.constant(np.array(axes, np.int32)) for axes in ([1, 2], [3])]

    def add(name, inputs, shape, **options):
        return builder.add(name, inputs, shape, "float32", **options)

    def mean(value):
        return add("MEAN", [add("MEAN", [value, over[0]], pixel, keepDims=True), over[1]], one, keepDims=True)

    x = add("DEQUANTIZE", [builder.image], whole)
    average, squares = mean(x), mean(add("MUL", [x, x], whole))
    variance = add("SUB", [squares, add("MUL", [average, average], one)], one)
    factor = add("RSQRT", [add("ADD", [variance, builder.constant(f32([1e-3]))], one)], one)
    if scaled:
        gamma = builder.constant(np.linspace(0.5, 2, 16).astype(f32))
        factor = add("MUL", [factor, gamma], pixel)
    shift = add("MUL", [average, factor], pixel if scaled else one)
    y = add("MUL", [x, factor], whole)
    if shifted:
        beta = builder.constant(np.linspace(-1, 1, 16).astype(f32))
        y = add("ADD", [y, add("SUB", [beta, shift], pixel)], whole)
    else:
        y = add("SUB", [y, shift], whole)
    builder.add("QUANTIZE", [y], whole, scale=0.031, zero_point=11)
    assert check(compiler, builder, batch=20) == {"kbnn_moments", "kbnn_normalize"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize(("size", "stride", "valid"), [(2, 2, True), (3, 2, False), (3, 1, False)])
def test_pooling(kind, size, stride, valid, compiler):
    builder = Builder(7, 7, 5, zero_point=20)
    builder.pool(kind, size, stride, valid, activation=1)
    check(compiler, builder)


def test_average_of_a_prelu(compiler):
    builder = Builder(8, 6, 5)
    slopes = builder.constant(np.array([-70, -1, 0, 40, 127], np.int8).reshape(1, 1, 5), (1 / 90,), (0,))
    builder.add("PRELU", [builder.image, slopes], (1, 8, 6, 5), scale=0.017, zero_point=-20)
    builder.pool("AVERAGE_POOL_2D", 2, 2)
    assert check(compiler, builder, batch=20) == {"kbnn_average_pool_of_prelu"}


@pytest.mark.parametrize("channels", [5, 40])
def test_signs_of_channels_that_are_always_positive(channels, compiler):
    """max(x, slope·x) with slopes 0 and 1 has the signs of x, or +1."""
    builder = Builder(6, 7, channels)
    same = {"scale": 0.02, "zero_point": 3}
    slope = builder.constant((127 * (np.arange(channels) % 3 > 0)).astype(np.int8), (1 / 127,), (0,))
    scaled = builder.add("MUL", [builder.image, slope], (1, 6, 7, channels), **same)
    builder.add("MAXIMUM", [builder.image, scaled], (1, 6, 7, channels), **same)
    builder.signs()
    builder.binary(4)
    assert check(compiler, builder) == {"kbnn_bconv_masked"}


@pytest.mark.parametrize("scale", [0.01, 0.004, 0.07])
def test_mean_and_dense(scale, compiler):
    builder = Builder(5, 7, 13)
    axes = builder.constant(np.array([1, 2], np.int32))
    builder.add("MEAN", [builder.last, axes], (1, 13), scale=scale)
    kernel = builder.constant(builder.random.integers(-127, 128, size=(6, 13)).astype(np.int8), (0.01,), (0,))
    bias = builder.constant(builder.random.integers(-99, 99, size=6).astype(np.int32))
    builder.add("FULLY_CONNECTED", [builder.last, kernel, bias], (1, 6), scale=0.03)
    assert check(compiler, builder, batch=20) == {"kbnn_mean", "kbnn_dense"}


@pytest.mark.parametrize("scale", [0.005, 0.02, 0.07])
def test_mean_that_keeps_its_axes(scale, compiler):
    builder = Builder(4, 4, 37, zero_point=-23)
    axes = builder.constant(np.array([1, 2], np.int32))
    builder.add("MEAN", [builder.last, axes], (1, 1, 1, 37), scale=scale, keepDims=True)
    assert check(compiler, builder, batch=50) == {"kbnn_mean"}


def test_a_whole_image_becomes_a_vector(compiler):
    builder = Builder(3, 4, 5)
    builder.pool("MAX_POOL_2D", 2, 1)
    source = builder.last
    builder.add("RESHAPE", [source], (1, 30), scale=source.scales[0], zero_point=source.zero_points[0])
    kernel = builder.constant(builder.random.integers(-127, 128, size=(3, 30)).astype(np.int8), (0.005,), (0,))
    builder.add("FULLY_CONNECTED", [builder.last, kernel, None], (1, 3))
    assert "kbnn_reshape" in check(compiler, builder)


MOVES = {
    "TRANSPOSE": ((6, 4, 8), [(0, 2, 1, 3)], {}),
    "STRIDED_SLICE": ((2, 5, 3), [(0, 1, 1, 2), (1, 4, 6, 8), (1, 2, 1, 2)], {}),
    "SPACE_TO_DEPTH": ((2, 3, 32), [], {"blockSize": 2}),
    "DEPTH_TO_SPACE": ((8, 12, 2), [], {"blockSize": 2}),
    "RESIZE_NEAREST_NEIGHBOR": ((8, 9, 8), [(8, 9)], {"halfPixelCenters": True}),
    "RESHAPE": ((8, 3, 8), [], {}),
}


@pytest.mark.parametrize("name", MOVES)
def test_values_in_other_places(name, compiler):
    """Followed by a convolution, and by one after a second move."""
    shape, constants, options = MOVES[name]
    builder = Builder(4, 6, 8)
    given = [builder.constant(np.array(values, np.int32)) for values in constants]
    builder.convolution(8, scale=0.3)
    moved = builder.add(name, [builder.last, *given], (1, *shape), scale=0.3, zero_point=-4, **options)
    builder.convolution(3)
    kernel = {"RESHAPE": "kbnn_reshape"}.get(name, "kbnn_rearrange")
    assert check(compiler, builder) == {"kbnn_conv", kernel}
    height, width, channels = shape
    order = builder.constant(np.array([0, 2, 1, 3], np.int32))
    builder.add("TRANSPOSE", [moved, order], (1, width, height, channels), scale=0.3, zero_point=-4)
    builder.convolution(5)
    steps = check(compiler, builder)
    assert steps == {"kbnn_conv", "kbnn_rearrange"} | {kernel}


def test_values_that_do_not_move_by_rows_columns_and_channels_are_refused():
    builder = Builder(3, 4, 4)
    order = builder.constant(np.array([0, 2, 1, 3], np.int32))
    builder.add("TRANSPOSE", [builder.last, order], (1, 4, 3, 4), scale=0.02, zero_point=3)
    builder.add("RESHAPE", [builder.last], (1, 3, 4, 4), scale=0.02, zero_point=3)
    builder.pool("MAX_POOL_2D", 2, 1)
    with pytest.raises(ConversionError, match="its values do not move by whole rows, columns and channels"):
        writers.write(builder.file())


def test_vectors_and_signals(compiler):
    """A vector, and a signal with its mean, joined."""
    builder = Builder(12, 5)
    axes = builder.constant(np.array([1], np.int32))
    mean = builder.add("MEAN", [builder.image, axes], (1, 5), scale=0.02, zero_point=3)
    largest = builder.add("REDUCE_MAX", [builder.image, axes], (1, 5), scale=0.02, zero_point=3)
    builder.add("CONCATENATION", [mean, largest], (1, 10), axis=1, scale=0.02, zero_point=3)
    assert check(compiler, builder) == {"kbnn_mean", "kbnn_max_pool", "kbnn_channels"}
    builder = Builder(20)
    kernel = builder.constant(builder.random.integers(-127, 128, size=(6, 20)).astype(np.int8), (0.01,), (0,))
    builder.add("FULLY_CONNECTED", [builder.last, kernel, None], (1, 6), scale=0.09)
    assert check(compiler, builder) == {"kbnn_dense"}
    with pytest.raises(
        ConversionError, match=r"input 'image' .* has the shape \(1, 2, 3, 4, 5\): C code takes one vector"
    ):
        writers.write(Builder(2, 3, 4, 5).file())


def test_channels_are_shuffled_split_padded_and_joined(compiler):
    builder = Builder(4, 5, 6)
    image, same = builder.image, {"scale": 0.02, "zero_point": 3}
    builder.add("RESHAPE", [image], (1, 4, 5, 2, 3), **same)
    order = builder.constant(np.array([0, 1, 2, 4, 3], np.int32))
    builder.add("TRANSPOSE", [builder.last, order], (1, 4, 5, 3, 2), **same)
    shuffled = builder.add("RESHAPE", [builder.last], (1, 4, 5, 6), **same)
    sides = builder.constant(np.array([[0, 0], [0, 0], [0, 0], [1, 2]], np.int32))
    padded = builder.add("PAD", [shuffled, sides], (1, 4, 5, 9), **same)
    builder.add("CONCATENATION", [padded, image, shuffled], (1, 4, 5, 21), axis=3, **same)
    assert check(compiler, builder) == {"kbnn_channels"}


def test_residual_blocks_share_one_stream_of_memory(compiler):
    """Signs, convolution and sum run row by row: only the stream is stored whole, and its rows are reused in place."""
    builder = Builder(16, 16, 3)
    stream = builder.convolution(16)
    for _ in range(3):
        builder.signs()
        builder.binary(16)
        builder.add("ADD", [builder.last, stream], (1, 16, 16, 16), scale=0.07)
        slopes = builder.constant(np.arange(-40, 120, 10).astype(np.int8).reshape(1, 1, 16), (1 / 127,), (0,))
        stream = builder.add("PRELU", [builder.last, slopes], (1, 16, 16, 16), scale=0.07)
    builder.signs()
    left = builder.binary(32, stride=2)
    builder.last = stream
    builder.pool("AVERAGE_POOL_2D", 2, 2)
    right = builder.convolution(32, size=1)
    builder.add("ADD", [left, right], (1, 8, 8, 32))
    axes = builder.constant(np.array([1, 2], np.int32))
    builder.add("MEAN", [builder.last, axes], (1, 32), scale=0.02)
    check(compiler, builder)
    _, planned, _ = compiler.network(builder.file())
    # The stream; three rows of signs, patches, expanded weights, and one row in between, which sums replace in place.
    assert planned.arena_bytes < 16 * 16 * 16 + 3200
    residual = next(each for each in planned.passes if len(each.steps) == 3)
    convolved, added, rectified = (planned.place(step.output) for step in residual.steps)
    assert convolved == added
    assert (convolved.rows, rectified.rows) == (1, 16)


def test_what_has_no_integer_form_is_refused_by_name():
    builder = Builder(4, 4, 8)
    builder.add("COS", [builder.last], (1, 4, 4, 8))
    with pytest.raises(
        ConversionError, match=r"'t1' \(COS\) has no form in C: there is no kernel for this operator; use the layers"
    ):
        writers.write(builder.file())
    builder.add("DEQUANTIZE", [builder.image], (1, 4, 4, 8), "float32")
    kernel = builder.constant(np.zeros((5, 8), f32))
    builder.operators = builder.operators[1:]
    builder.add("FULLY_CONNECTED", [builder.last, kernel], (1, 5), "float32")
    with pytest.raises(
        ConversionError, match=r"\(FULLY_CONNECTED\) .* which is float, .*; convert to int8 for the device"
    ):
        writers.write(builder.file())
    builder = Builder(4, 4, 8)
    builder.add("DEQUANTIZE", [builder.last], (1, 4, 4, 8), "float32")
    builder.add("LOGISTIC", [builder.last], (1, 4, 4, 8), "float32")
    with pytest.raises(
        ConversionError, match=r"'t2' \(LOGISTIC\) has no form in C: its input is float, because a layer before"
    ):
        writers.write(builder.file())
    builder = Builder(4, 4, 8)
    builder.add("ELU", [builder.last], (1, 4, 4, 8))
    with pytest.raises(ConversionError, match=r"'t1' \(ELU\) has no form in C: it is supported between float values"):
        writers.write(builder.file())
    builder = Builder(4, 4, 8)
    builder.add("ARG_MAX", [builder.last], (1, 4, 4, 8))
    with pytest.raises(ConversionError, match="there is no kernel for this operator; end the network with the logits"):
        writers.write(builder.file())
    builder = Builder(4, 4, 8)
    builder.signs()
    builder.binary(8, out="float32")
    with pytest.raises(ConversionError, match="is not int8"):
        writers.write(builder.file())


def without(number):
    return lambda tensors: (*tensors[:number], None, *tensors[number + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: (),
        without(0),
        without(2),
        lambda tensors: (*tensors[:3], replace(tensors[3], data=None)),
        lambda tensors: (*tensors[:3], replace(tensors[3], data=tensors[3].data[:-1])),
        lambda tensors: (tensors[0], replace(tensors[1], shape=(8, 3, 3, 1 << 20)), *tensors[2:]),
        lambda tensors: (tensors[0], replace(tensors[1], shape=(8, 0, 0, 1)), *tensors[2:]),
    ],
)
def test_a_tampered_operator_is_one_clear_error(change):
    builder = Builder(4, 4, 8)
    builder.signs()
    builder.binary(8)
    operator = builder.operators[-1]
    builder.operators[-1] = replace(operator, inputs=change(operator.inputs))
    with pytest.raises(KbnnError, match=r"the file is damaged there|has no form in C"):
        writers.write(builder.file())
