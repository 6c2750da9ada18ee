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
    true of values that are rounded to int8, unless their own name is that of the rounding.
    """
    readers = {reader.name for reader in file.consumers[tensor.index]}
    if "LceBMaxPool2d" in readers or readers == {"QUANTIZE"}:
        return ""
    producer = file.producers.get(tensor.index)
    if producer is None or producer.name not in ("LceBMaxPool2d", "QUANTIZE"):
        return tensor.name
    # An input of the network keeps its name when it is rounded.
    source = producer.operands[0]
    if source.index not in file.producers:
        return tensor.name
    return f"{tensor.name};{source.name}" if producer.name == "QUANTIZE" else source.name


def _find(piece: str, order: Mapping[str, int]) -> int | None:
    """The operation with a name, which a number may follow: `n1/o/112` is the twelfth value named after `n1/o/1`."""
    stem = piece.rstrip("0123456789")
    if not stem.endswith("/"):
        return order.get(piece, order.get(stem))
    candidates = (piece[:end] for end in range(len(piece), len(stem), -1))
    return next((order[name] for name in candidates if name in order), None)
