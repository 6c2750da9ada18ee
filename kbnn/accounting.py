"""The cost of a deployed network: storage, multiplications and FLOPs, layer by layer, counted as in the papers.

>>> cost = kbnn.accounting.count(kbnn.models.build("bireal18", input_shape=(224, 224, 3), classes=1000))
>>> cost.storage_bits / 1e6, cost.flops
(33.51..., 164...)
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import larq as lq
import tensorflow as tf

from kbnn import layers, quantizers, structure, tables
from kbnn.errors import KbnnError, UsageError, unknown
from kbnn.structure import REAL_BITS, bits

Shapes: TypeAlias = tf.TensorShape | list[tf.TensorShape]


class LayerCall(Protocol):
    """A call of a layer in a functional model, one of Keras's private `Node`s."""

    layer: tf.keras.layers.Layer
    input_shapes: Shapes
    output_shapes: Shapes
    parent_nodes: list["LayerCall"]


# Bi-Real Net, section 4.4: a processor multiplies 64 signs in the time of one real multiplication.
SIGNS_PER_MULTIPLICATION = 64


@dataclass(frozen=True)
class LayerCost:
    """The cost of one call of a layer; `output_shape` does not include the batch."""

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    binary_weights: int
    real_parameters: int
    thresholds: int
    binary_macs: int
    real_macs: int
    storage_bits: int
    flops: float


@dataclass(frozen=True)
class Cost(tables.Shown):
    """The cost of a deployed network; all totals are sums over `layers`.

    `real_parameters` includes `thresholds`, the per-channel shifts before a sign (RSign, batch median). `real_macs`
    includes all real multiplications that the rule counts; `flops = real_macs + binary_macs / 64`.
    """

    model: str
    rule: str
    binary_weights: int
    real_parameters: int
    thresholds: int
    binary_macs: int
    real_macs: int
    storage_bits: int
    flops: float
    layers: tuple[LayerCost, ...]

    def __str__(self) -> str:
        costly = [layer for layer in self.layers if layer.storage_bits or layer.flops]
        rows = [_row(layer.name, "x".join(map(str, layer.output_shape)), layer, self.flops) for layer in costly]
        table = tables.render(
            _COLUMNS, [*rows, _row("total", "", self, self.flops)], title=f"{self.model}, as deployed"
        )
        thresholds = f", {self.thresholds:,} of the real parameters are thresholds before a sign"
        return (
            f"{table}\n{self.storage_bits / 1e6:.2f} Mbit, {self.flops:.4g} FLOPs (real MACs + binary MACs / 64)"
            f"{thresholds if self.thresholds else ''}; {len(self.layers) - len(costly)} other layers have no "
            f"parameters and no multiplications"
        )


_COLUMNS = (
    "layer",
    ">output",
    ">binary weights",
    ">real parameters",
    ">binary MACs",
    ">real MACs",
    ">share of FLOPs",
    ">bits",
)


def _row(name: str, shape: str, cost: LayerCost | Cost, flops: float) -> tuple[str, ...]:
    counts = (cost.binary_weights, cost.real_parameters, cost.binary_macs, cost.real_macs)
    share = cost.flops / flops if flops else 0.0
    return (name, shape, *(f"{count:,}" for count in counts), f"{share:.1%}", f"{cost.storage_bits:,}")


@dataclass(frozen=True)
class Kernel:
    """A deployed kernel: number of weights, MACs per inference, and bits of weights and inputs."""

    weights: int
    macs: int
    weight_bits: int = REAL_BITS
    input_bits: int = REAL_BITS

    @property
    def is_binary(self) -> bool:
        return self.weight_bits == self.input_bits == 1


@dataclass(frozen=True)
class Deployed:
    """A layer at inference: its kernels, and other real parameters and multiplications that count."""

    kernels: tuple[Kernel, ...] = ()
    parameters: int = 0
    thresholds: int = 0
    multiplications: int = 0


def count(model: tf.keras.Model, rule: str = "bireal", input_shape: tuple[int, int, int] | None = None) -> Cost:
    """Counts storage and operations of the deployed form of a model with layers of kbnn, Larq and Keras.

    Storage is 32 bits per real parameter and 1 bit per binarized weight. FLOPs are real multiplications plus binary
    multiplications / 64. Batch normalization stores two values per channel and no moving statistics. Batch
    normalization, pooling, bias and the scale of a binary convolution (which folds into one of them) have no
    multiplications that count. A threshold before a sign (RSign, batch median) is one value per channel. XNOR-Net's
    kernels are counted as in its paper: the scale α of each filter is stored and multiplies each output, and so does K,
    the scale of the activations.

    `rule="presb"` reproduces the ratio of 36.8 in PresB-Net's paper: it counts one more multiplication per output value
    of the stem's batch normalization and of a half block's scale, biased PReLU, layer normalization, biased PReLU and
    batch normalization, but none for the block's 1x1 shortcut and RPReLU.

    Args:
        model: a functional or sequential model, or with `input_shape`, a subclassed one.
        rule: `bireal` or `presb`.
        input_shape: `(H, W, C)`, if the model does not fix its input shape.

    Raises:
        UsageError: an unknown rule or an unknown image size.
        KbnnError: a layer whose multiplications are unknown; the message says how to register it.

    Source: Bi-Real Net, section 4.4 and table 3; PresB-Net, section "Experimental results".
    """
    if rule not in RULES:
        raise unknown("accounting rule", rule, RULES)
    rows = tuple(_layers(_functional(model, input_shape), rule, prefix=""))
    totals = {total: sum(getattr(row, total) for row in rows) for total in _TOTALS}
    return Cost(model=model.name, rule=rule, layers=rows, **totals)


_TOTALS = ("binary_weights", "real_parameters", "thresholds", "binary_macs", "real_macs", "storage_bits", "flops")


def _functional(model: tf.keras.Model, input_shape: tuple[int, int, int] | None) -> tf.keras.Model:
    """The model as a functional model with the given input shape."""
    if input_shape is not None:
        inputs = tf.keras.Input(input_shape)
        if model.outputs:
            return tf.keras.models.clone_model(model, input_tensors=inputs)
        return tf.keras.Model(inputs, model.call(inputs))
    if not model.outputs:
        raise UsageError(
            f"cannot count '{model.name}': received a model without a fixed input shape, "
            f"give input_shape=(height, width, channels)"
        )
    return model


def _layers(model: tf.keras.Model, rule: str, prefix: str) -> Iterator[LayerCost]:
    """The costs of all calls, in the order of execution. A layer's parameters are counted in its first call only."""
    stored: set[int] = set()
    for node in _nodes(model):
        if isinstance(node.layer, tf.keras.Model):
            yield from _layers(node.layer, rule, f"{prefix}{node.layer.name}/")
            continue
        yield _cost(node, rule, prefix, stores=id(node.layer) not in stored)
        stored.add(id(node.layer))


def _nodes(model: tf.keras.Model) -> list[LayerCall]:
    """The calls of layers between a model's inputs and outputs, in the order of execution."""
    order: list[LayerCall] = []
    done = {id(tensor.node) for tensor in model.inputs}
    pending = [tensor.node for tensor in reversed(tf.nest.flatten(model.outputs))]
    while pending:
        node = pending[-1]
        waiting = [parent for parent in node.parent_nodes if id(parent) not in done]
        if id(node) in done or not waiting:
            pending.pop()
            if id(node) not in done:
                done.add(id(node))
                order.append(node)
        pending.extend(reversed(waiting))
    return order


def _cost(node: LayerCall, rule: str, prefix: str, stores: bool) -> LayerCost:
    form = deployed(node.layer, node)
    real_weights = sum(kernel.weights for kernel in form.kernels if kernel.weight_bits >= REAL_BITS)
    quantized = [kernel for kernel in form.kernels if kernel.weight_bits < REAL_BITS]
    real_parameters = real_weights + form.parameters + form.thresholds
    storage_bits = REAL_BITS * real_parameters + sum(kernel.weights * kernel.weight_bits for kernel in quantized)
    binary_macs = sum(kernel.macs for kernel in form.kernels if kernel.is_binary)
    real_macs = sum(kernel.macs for kernel in form.kernels if not kernel.is_binary)
    real_macs += form.multiplications + RULES[rule](node)
    return LayerCost(
        name=prefix + node.layer.name,
        kind=type(node.layer).__name__,
        output_shape=_shape(node.output_shapes)[1:],
        binary_weights=stores * sum(kernel.weights for kernel in quantized if kernel.weight_bits == 1),
        real_parameters=stores * real_parameters,
        thresholds=stores * form.thresholds,
        binary_macs=binary_macs,
        real_macs=real_macs,
        storage_bits=stores * storage_bits,
        flops=real_macs + binary_macs / SIGNS_PER_MULTIPLICATION,
    )


@functools.singledispatch
def deployed(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    """What a call of a layer stores and multiplies at inference; `deployed.register(YourLayer)` adds a class.

    A layer that is not registered counts with its trainable parameters, and without multiplications.

    Raises:
        KbnnError: an unregistered layer has a kernel (a parameter of rank 2 or more), or calls a TensorFlow function
            that multiplies matrices.
    """
    parameters = [weight for weight in layer.weights if weight.trainable]
    function = getattr(layer, "symbol", "")
    if any(len(weight.shape) > 1 for weight in parameters) or any(part in function for part in _MULTIPLYING):
        raise _unknown_multiplications(layer, function)
    return Deployed(parameters=sum(_size(weight) for weight in parameters))


# Parts of the names of TensorFlow functions that multiply matrices; a functional model may call them directly.
_MULTIPLYING = ("matmul", "conv", "einsum", "tensordot")


@deployed.register(tf.keras.layers.Attention)
@deployed.register(tf.keras.layers.AdditiveAttention)
@deployed.register(tf.keras.layers.Dot)
def _uncounted(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    raise _unknown_multiplications(layer)


def _unknown_multiplications(layer: tf.keras.layers.Layer, function: str = "") -> KbnnError:
    kind = f"{type(layer).__name__} of {function}" if function else type(layer).__name__
    return KbnnError(
        f"cannot count layer '{layer.name}': the number of multiplications of a {kind} is unknown; "
        f"register a function with @kbnn.accounting.deployed.register({type(layer).__name__})"
    )


@deployed.register(tf.keras.layers.Conv1D)
@deployed.register(tf.keras.layers.Conv2D)
@deployed.register(tf.keras.layers.Conv3D)
def _convolution(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    """Each weight multiplies once per output position, including those at the border."""
    kernel = _kernel(layer, node, "kernel", macs=_size(layer.kernel) * _positions(layer, node.output_shapes))
    return Deployed((kernel,), parameters=_bias(layer))


@deployed.register(tf.keras.layers.Conv1DTranspose)
@deployed.register(tf.keras.layers.Conv2DTranspose)
@deployed.register(tf.keras.layers.Conv3DTranspose)
def _transposed_convolution(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    kernel = _kernel(layer, node, "kernel", macs=_size(layer.kernel) * _positions(layer, node.input_shapes))
    return Deployed((kernel,), parameters=_bias(layer))


@deployed.register(tf.keras.layers.DepthwiseConv1D)
@deployed.register(tf.keras.layers.DepthwiseConv2D)
def _depthwise_convolution(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    macs = _size(layer.depthwise_kernel) * _positions(layer, node.output_shapes)
    return Deployed((_kernel(layer, node, "depthwise", macs=macs),), parameters=_bias(layer))


@deployed.register(tf.keras.layers.SeparableConv1D)
@deployed.register(tf.keras.layers.SeparableConv2D)
def _separable_convolution(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    positions = _positions(layer, node.output_shapes)
    depthwise = _kernel(layer, node, "depthwise", macs=_size(layer.depthwise_kernel) * positions)
    pointwise = Kernel(
        _size(layer.pointwise_kernel),
        _size(layer.pointwise_kernel) * positions,
        bits(getattr(layer, "pointwise_quantizer", None)),
        bits(getattr(layer, "intermediate_quantizer", None)),
    )
    return Deployed((depthwise, pointwise), parameters=_bias(layer))


@deployed.register(tf.keras.layers.LocallyConnected1D)
@deployed.register(tf.keras.layers.LocallyConnected2D)
def _locally_connected(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    return Deployed((_kernel(layer, node, "kernel", macs=_size(layer.kernel)),), parameters=_bias(layer))


@deployed.register(tf.keras.layers.Dense)
def _dense(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    vectors = _product(layer, _shape(node.input_shapes)[1:-1])
    return Deployed((_kernel(layer, node, "kernel", macs=_size(layer.kernel) * vectors),), parameters=_bias(layer))


@deployed.register(structure.BatchNormalization)
def _batch_normalization(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    """A factor and an offset per channel, whether or not gamma and beta are trained."""
    return Deployed(parameters=2 * _size(layer.moving_mean))


@deployed.register(tf.keras.layers.Embedding)
@deployed.register(tf.keras.layers.LayerNormalization)
@deployed.register(tf.keras.layers.PReLU)
def _parameters(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    return Deployed(parameters=sum(_size(weight) for weight in layer.weights))


@deployed.register(layers.ChannelShift)
@deployed.register(layers.BatchMedian)
def _threshold(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    """One constant per channel before the sign, whatever the layer trains; two such layers in a row are merged."""
    follows = isinstance(node.parent_nodes[0].layer, layers.ChannelShift | layers.BatchMedian)
    channels = _product(layer, _shape(node.output_shapes)[-1:])
    return Deployed(thresholds=0 if follows else channels)


@deployed.register(layers.GroupAwareNormalization)
def _group_aware_normalization(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    return Deployed(parameters=sum(_size(weight) for weight in layer.weights if weight.trainable))


@deployed.register(lq.quantizers.Quantizer)
def _quantizer(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    """A quantizer's parameters affect its gradient only."""
    return Deployed()


@deployed.register(layers.BinaryConv2D)
@deployed.register(layers.BinaryDense)
def _binary(layer: tf.keras.layers.Layer, node: LayerCall) -> Deployed:
    """The scale folds into the next layer and does not count.

    XNOR-Net stores α and multiplies each output by α and by K. AdaBin's kernels need one more filter of ones per group,
    and one more multiplication per output.
    """
    form = deployed.dispatch(
        tf.keras.layers.Conv2D if isinstance(layer, layers.BinaryConv2D) else tf.keras.layers.Dense
    )(layer, node)
    outputs = _product(layer, _shape(node.output_shapes)[1:])
    if isinstance(layer.kernel_quantizer, quantizers.EqualizedSign):
        (kernel,), filters = form.kernels, layer.kernel.shape[-1]
        groups = getattr(layer, "groups", 1)
        ones = replace(kernel, weights=groups * kernel.weights // filters, macs=groups * kernel.macs // filters)
        return replace(form, kernels=(kernel, ones), parameters=form.parameters + filters, multiplications=outputs)
    if not isinstance(layer.kernel_quantizer, quantizers.XNORSign):
        return form
    return replace(form, parameters=form.parameters + layer.kernel.shape[-1], multiplications=2 * outputs)


def _kernel(layer: tf.keras.layers.Layer, node: LayerCall, name: str, macs: int) -> Kernel:
    """A layer's first kernel, with the precision that its quantizers declare."""
    weights = layer.depthwise_kernel if name == "depthwise" else layer.kernel
    return Kernel(
        _size(weights),
        macs,
        weight_bits=bits(getattr(layer, f"{name}_quantizer", None)),
        input_bits=min(bits(getattr(layer, "input_quantizer", None)), _output_bits(node.parent_nodes)),
    )


def _output_bits(nodes: list[LayerCall]) -> int:
    """The bits of a quantizer that precedes the layer, as a separate layer or as an activation."""
    producers = [source for node in nodes for source in (node.layer, getattr(node.layer, "activation", None))]
    return min((bits(source) for source in producers if isinstance(source, lq.quantizers.Quantizer)), default=REAL_BITS)


def _bias(layer: tf.keras.layers.Layer) -> int:
    return _size(layer.bias) if layer.use_bias else 0


def _size(weight: tf.Variable) -> int:
    return weight.shape.num_elements()


def _positions(layer: tf.keras.layers.Layer, shapes: Shapes) -> int:
    """The number of spatial positions: the product of all axes but batch and channels."""
    shape = _shape(shapes)
    return _product(layer, shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _product(layer: tf.keras.layers.Layer, sizes: tuple[int | None, ...]) -> int:
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        raise UsageError(
            f"cannot count layer '{layer.name}': received the unknown size {sizes}, "
            f"give input_shape=(height, width, channels)"
        )
    return math.prod(known)


def _shape(shapes: Shapes) -> tuple[int | None, ...]:
    """The first of several shapes."""
    return tuple(shapes[0] if isinstance(shapes, list) else shapes)


def _nothing_more(node: LayerCall) -> int:
    return 0


def _presb(node: LayerCall) -> int:
    """One multiplication per value for each layer that scales it, in the stem and in the 3x3 path of a half block."""
    layer = node.layer
    values = _product(layer, _shape(node.output_shapes)[1:])
    if isinstance(layer, layers.GroupAwareNormalization):
        return (2 + (layer.activation is not None)) * values
    source = node.parent_nodes[0].layer if isinstance(layer, structure.BatchNormalization) else layer
    is_1x1 = getattr(source, "kernel_size", None) == (1, 1)
    return values if isinstance(layer, _SCALING) and not is_1x1 else 0


_SCALING = (
    layers.BiasedPReLU,
    layers.BinaryConv2D,
    layers.GroupNormalization,
    structure.BatchNormalization,
)


# The multiplications that a rule counts in addition to those of kernels.
RULES: dict[str, Callable[[LayerCall], int]] = {"bireal": _nothing_more, "presb": _presb}
