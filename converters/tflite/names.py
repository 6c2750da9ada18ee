"""Finds the operation whose value a converted tensor holds, by the tensor's name.

The converter names a tensor after the operation that computed it, or after all operations that it fused: the tensor
`a;b;c` holds the value of whichever of the three is executed last. Names are cut at 50 characters, and a number is
appended to names that repeat.
"""

from collections.abc import Mapping

from kbnn.converters.tflite.flatbuffer import File, Tensor


def operations(name: str, order: Mapping[str, int]) -> list[int]:
    """The positions, in execution order, of the operations in a tensor's name."""
    found = (_find(piece, order) for piece in name.split(";"))
    return [place for place in found if place is not None]


def last_operation(name: str, order: Mapping[str, int]) -> int | None:
    """The position of the operation whose value a tensor holds; None if the name does not tell."""
    return max(operations(name, order), default=None)


def value_name(file: File, tensor: Tensor) -> str:
    """The name that tells which value a tensor holds; "" if there is none.

    The converter moves a sign before the max-pooling that precedes it, but does not rename the tensors. The name of the
    unpooled bits therefore tells what the pooled bits hold, and no name tells what the unpooled bits hold. The same is
    true of values that are rounded to int8.
    """
    readers = {reader.name for reader in file.consumers[tensor.index]}
    if "LceBMaxPool2d" in readers or readers == {"QUANTIZE"}:
        return ""
    producer = file.producers.get(tensor.index)
    if producer is None or producer.name not in ("LceBMaxPool2d", "QUANTIZE"):
        return tensor.name
    # An input of the network keeps its name when it is rounded.
    source = producer.operands[0]
    return source.name if source.index in file.producers else tensor.name


def _find(piece: str, order: Mapping[str, int]) -> int | None:
    found = order.get(piece)
    return found if found is not None else order.get(piece.rstrip("0123456789"))
