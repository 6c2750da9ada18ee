"""Checks SavedModels before they are loaded: they are programs, whose operations may read and write files."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kbnn.errors import KbnnError
from kbnn.loading import Json, UntrustedModelError, check_config, is_unknown_class, parse_json

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

Parsed = TypeVar("Parsed", bound="Message")

_METADATA = "keras_metadata.pb"
# Weights are in other files.
_MAX_METADATA_BYTES = 64_000_000
_MAX_GRAPH_BYTES = 500_000_000

# Operations that compute, move values, or use the model's own variables. Others may access the machine.
OPERATIONS = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "AddN",
        "AddV2",
        "All",
        "Any",
        "ArgMax",
        "ArgMin",
        "Asin",
        "Asinh",
        "Assert",
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "AssignVariableOp",
        "Atan",
        "Atan2",
        "Atanh",
        "AvgPool",
        "AvgPool3D",
        "AvgPoolGrad",
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "BatchToSpaceND",
        "BiasAdd",
        "BiasAddGrad",
        "Bincount",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BroadcastArgs",
        "BroadcastGradientArgs",
        "BroadcastTo",
        "Bucketize",
        "Cast",
        "Ceil",
        "ClipByValue",
        "Complex",
        "Concat",
        "ConcatOffset",
        "ConcatV2",
        "Const",
        "Conv2D",
        "Conv2DBackpropFilter",
        "Conv2DBackpropInput",
        "Conv3D",
        "Conv3DBackpropInputV2",
        "Cos",
        "Cosh",
        "CropAndResize",
        "Cumprod",
        "Cumsum",
        "DenseBincount",
        "DepthToSpace",
        "DepthwiseConv2dNative",
        "DepthwiseConv2dNativeBackpropFilter",
        "DepthwiseConv2dNativeBackpropInput",
        "DisableCopyOnRead",
        "Div",
        "DivNoNan",
        "DynamicPartition",
        "DynamicStitch",
        "Einsum",
        "Elu",
        "EluGrad",
        "Empty",
        "EnsureShape",
        "Equal",
        "Erf",
        "Erfc",
        "Exp",
        "ExpandDims",
        "Expm1",
        "ExtractImagePatches",
        "FakeQuantWithMinMaxArgs",
        "FakeQuantWithMinMaxVars",
        "FakeQuantWithMinMaxVarsPerChannel",
        "Fill",
        "Floor",
        "FloorDiv",
        "FloorMod",
        "FusedBatchNorm",
        "FusedBatchNormGradV3",
        "FusedBatchNormV2",
        "FusedBatchNormV3",
        "Gather",
        "GatherNd",
        "GatherV2",
        "Greater",
        "GreaterEqual",
        "Identity",
        "IdentityN",
        "If",
        "Imag",
        "ImageProjectiveTransformV2",
        "ImageProjectiveTransformV3",
        "InvertPermutation",
        "IsFinite",
        "IsInf",
        "IsNan",
        "L2Loss",
        "LRN",
        "LeakyRelu",
        "LeakyReluGrad",
        "Less",
        "LessEqual",
        "Lgamma",
        "LinSpace",
        "Log",
        "Log1p",
        "LogSoftmax",
        "LogicalAnd",
        "LogicalNot",
        "LogicalOr",
        "MatMul",
        "MatrixBandPart",
        "MatrixDiagPartV3",
        "MatrixDiagV3",
        "Max",
        "MaxPool",
        "MaxPool3D",
        "MaxPoolGrad",
        "MaxPoolV2",
        "Maximum",
        "Mean",
        "Min",
        "Minimum",
        "MirrorPad",
        "Mod",
        "Mul",
        "MulNoNan",
        "Neg",
        "NextAfter",
        "NoOp",
        "NotEqual",
        "OneHot",
        "OnesLike",
        "Pack",
        "Pad",
        "PadV2",
        "PartitionedCall",
        "Placeholder",
        "PlaceholderWithDefault",
        "Pow",
        "PreventGradient",
        "Prod",
        "Qr",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "Range",
        "Rank",
        "ReadVariableOp",
        "Real",
        "RealDiv",
        "Reciprocal",
        "Relu",
        "Relu6",
        "Relu6Grad",
        "ReluGrad",
        "Reshape",
        "ResizeArea",
        "ResizeBicubic",
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "ResourceGather",
        "ResourceGatherNd",
        "ReverseV2",
        "Rint",
        "RngReadAndSkip",
        "Roll",
        "Round",
        "Rsqrt",
        "RsqrtGrad",
        "ScaleAndTranslate",
        "ScatterNd",
        "Select",
        "SelectV2",
        "Selu",
        "SeluGrad",
        "Shape",
        "ShapeN",
        "Sigmoid",
        "SigmoidGrad",
        "Sign",
        "Sin",
        "Sinh",
        "Size",
        "Slice",
        "Softmax",
        "SoftmaxCrossEntropyWithLogits",
        "Softplus",
        "SoftplusGrad",
        "Softsign",
        "SpaceToBatchND",
        "SpaceToDepth",
        "SparseSoftmaxCrossEntropyWithLogits",
        "Split",
        "SplitV",
        "Sqrt",
        "SqrtGrad",
        "Square",
        "SquaredDifference",
        "Squeeze",
        "StatefulPartitionedCall",
        "StatelessIf",
        "StatelessMultinomial",
        "StatelessRandomGetAlg",
        "StatelessRandomGetKeyCounter",
        "StatelessRandomNormalV2",
        "StatelessRandomUniform",
        "StatelessRandomUniformFullIntV2",
        "StatelessRandomUniformIntV2",
        "StatelessRandomUniformV2",
        "StatelessTruncatedNormalV2",
        "StatelessWhile",
        "StopGradient",
        "StridedSlice",
        "StridedSliceGrad",
        "Sub",
        "Sum",
        "Tan",
        "Tanh",
        "TanhGrad",
        "TensorListFromTensor",
        "TensorListGetItem",
        "TensorListReserve",
        "TensorListSetItem",
        "TensorListStack",
        "Tile",
        "TopKV2",
        "Transpose",
        "TruncateDiv",
        "TruncateMod",
        "TruncatedNormal",
        "Unique",
        "Unpack",
        "UnsortedSegmentSum",
        "VarHandleOp",
        "VarIsInitializedOp",
        "VariableShape",
        "Where",
        "While",
        "Xdivy",
        "Xlogy",
        "ZerosLike",
    ]
)


def check(folder: Path, *, trust: bool, max_bytes: int) -> int:
    """Checks a SavedModel's operations and configuration, and returns the size of its weights in bytes.

    Raises:
        UntrustedModelError: it has operations that may access the machine, or names Python objects.
        KbnnError: it is damaged or too large, or was not written by Keras.
    """
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > max_bytes:
        raise KbnnError(f"'{folder}' is too large: received {total:,} bytes, the limit is {max_bytes:,}")
    if trust:
        return total
    # TensorFlow would read these files instead of the one that is checked here.
    for name in ("saved_model.pbtxt", "saved_model.cpb"):
        if (folder / name).exists():
            raise _untrusted(folder, f"it has a '{name}'")
    if not (folder / _METADATA).is_file():
        raise KbnnError(f"'{folder}' is not a Keras SavedModel: it has no {_METADATA}; save it with model.save")
    for config in _keras_nodes(folder):
        check_config(folder, config)
    _check_operations(folder)
    return total


def _keras_nodes(folder: Path) -> Iterator[Json]:
    """The configuration of each of Keras's objects."""
    from tf_keras.protobuf import saved_metadata_pb2

    message = _parse(saved_metadata_pb2.SavedMetadata(), folder / _METADATA, _MAX_METADATA_BYTES)
    for node in message.nodes:
        config = parse_json(folder, node.metadata)
        for described in [config, config.get("model_config")] if isinstance(config, dict) else []:
            if isinstance(described, dict) and is_unknown_class(described.get("class_name")):
                # Keras then creates an object from the SavedModel's functions.
                del described["class_name"]
        yield config


def _check_operations(folder: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    message = _parse(saved_model_pb2.SavedModel(), folder / "saved_model.pb", _MAX_GRAPH_BYTES)
    # TensorFlow runs the main graph of a SavedModel with several graphs, or without objects.
    for graph in message.meta_graphs:
        if len(message.meta_graphs) > 1 or not graph.HasField("object_graph_def"):
            raise _untrusted(folder, "it is a TensorFlow 1 model, whose graph runs when it is loaded")
        functions = {function.signature.name: function for function in graph.graph_def.library.function}
        called = set(graph.object_graph_def.concrete_functions) | (set(functions) - _savers(graph))
        for name in _reachable(functions, called):
            for node in functions[name].node_def:
                if node.op not in OPERATIONS and node.op not in functions:
                    raise _untrusted(folder, f"its function '{name}' has the operation {node.op}")


def _savers(graph: "MetaGraphDef") -> set[str]:
    """The functions that save and restore checkpoints; neither runs when a model is loaded or called."""
    wanted = {graph.saver_def.save_tensor_name.partition(":")[0], graph.saver_def.restore_op_name}
    return {node.attr["f"].func.name for node in graph.graph_def.node if node.name in wanted and "f" in node.attr}


def _reachable(functions: "dict[str, FunctionDef]", names: set[str]) -> set[str]:
    """These functions and all functions that they call."""
    waiting, found = [name for name in names if name in functions], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for node in functions[name].node_def:
            called = [node.op]
            for value in node.attr.values():
                called.extend([value.func.name, *(each.name for each in value.list.func)])
            waiting.extend(each for each in called if each in functions)
    return found


def _parse(message: Parsed, path: Path, limit: int) -> Parsed:
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size > limit:
        raise KbnnError(f"'{path}' is too large: received {size:,} bytes, the limit is {limit:,}")
    try:
        message.ParseFromString(path.read_bytes())
    except (DecodeError, struct.error, OSError) as error:
        raise KbnnError(f"'{path}' is damaged ({error}): save the model again") from error
    return message


def _untrusted(folder: Path, what: str) -> UntrustedModelError:
    return UntrustedModelError(
        f"'{folder}' could run code when it is loaded or called: {what}; save the model as .keras, or pass trust=True "
        f"if you trust its author"
    )
