"""The converter names a tensor after the graph operation whose value it holds, or after all that it fused into one.

`a;b;c` holds the value of the one of the three that is executed last. Names are cut at 50 characters, and numbered
where they repeat.
"""

from collections.abc import Mapping

from kbnn.converters.tflite.flatbuffer import File, Tensor


def operations(name: str, order: Mapping[str, int]) -> list[int]:
    """The places, in the order of execution, of the operations in a tensor's name."""
    found = (_find(piece, order) for piece in name.split(";"))
    return [place for place in found if place is not None]


def last_operation(name: str, order: Mapping[str, int]) -> int | None:
    """The place of the operation whose value a tensor holds; None when its name does not tell."""
    return max(operations(name, order), default=None)


def value_name(file: File, tensor: Tensor) -> str:
    """The name that tells what a tensor holds.

    The converter takes the sign before it pools, but leaves the names in the order they were in: the pooled bits are
    what the unpooled ones are called, and those are what nothing is called. So with a value that is rounded to int8.
    """
    readers = {reader.name for reader in file.consumers[tensor.index]}
    if "LceBMaxPool2d" in readers or readers == {"QUANTIZE"}:
        return ""
    producer = file.producers.get(tensor.index)
    if producer is None or producer.name not in ("LceBMaxPool2d", "QUANTIZE"):
        return tensor.name
    # The network's input keeps its name when it is rounded.
    source = producer.operands[0]
    return source.name if source.index in file.producers else tensor.name


def _find(piece: str, order: Mapping[str, int]) -> int | None:
    found = order.get(piece)
    return found if found is not None else order.get(piece.rstrip("0123456789"))
