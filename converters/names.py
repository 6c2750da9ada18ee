"""The converter names a tensor after the graph operation whose value it holds, or after all that it fused into one.

`a;b;c` holds the value of the one of the three that is executed last. Names are cut at 50 characters, and numbered
where they repeat.
"""

from collections.abc import Mapping


def operations(name: str, order: Mapping[str, int]) -> list[int]:
    """The places, in the order of execution, of the operations in a tensor's name."""
    found = (_find(piece, order) for piece in name.split(";"))
    return [place for place in found if place is not None]


def last_operation(name: str, order: Mapping[str, int]) -> int | None:
    """The place of the operation whose value a tensor holds; None when its name does not tell."""
    return max(operations(name, order), default=None)


def _find(piece: str, order: Mapping[str, int]) -> int | None:
    found = order.get(piece)
    return found if found is not None else order.get(piece.rstrip("0123456789"))
