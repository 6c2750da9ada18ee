"""A budget for reading a file that may be hostile.

Tables, vectors and strings of a FlatBuffer can be shared: a small file can refer to one large table a million times,
and unpacking it would take forever. Every lookup of a field, and every vector and string that is read, is therefore
charged against a budget that is proportional to the size of the file.
"""

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from flatbuffers.table import Table

# The files of real networks need 0.17 lookups and 0.9 bytes of vectors and strings per byte.
_LOOKUPS_PER_BYTE = 1
_BYTES_PER_BYTE = 2
_SMALLEST = 10_000
# They take the generated readers about 20 seconds; a network of 100,000 operators needs 3 million.
_MOST_LOOKUPS = 10_000_000


class NumberType(Protocol):
    """A type of numbers in FlatBuffers' `number_types`."""

    py_type: Callable[[float], float]
    packer_type: struct.Struct


class ExhaustedError(ValueError):
    """The file refers to more data than it can contain."""


class _ThreadBudget(threading.local):
    size = 0
    lookups: float = float("inf")
    bytes: float = float("inf")


_budget = _ThreadBudget()


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Limits what this thread reads to a multiple of the `size` of a file in bytes.

    Raises:
        ExhaustedError: inside the block, when a file exceeds its budget.
    """
    before = _budget.size, _budget.lookups, _budget.bytes
    _budget.size = size
    _budget.lookups = min(_SMALLEST + _LOOKUPS_PER_BYTE * size, _MOST_LOOKUPS)
    _budget.bytes = _SMALLEST + _BYTES_PER_BYTE * size
    try:
        yield
    finally:
        _budget.size, _budget.lookups, _budget.bytes = before


def spend(lookups: int = 0, size: int = 0) -> None:
    """Charges lookups of fields, and bytes that are copied or viewed."""
    _budget.lookups -= lookups
    _budget.bytes -= size
    if _budget.lookups < 0 or _budget.bytes < 0:
        raise ExhaustedError(
            f"it refers to more data than it can contain: over {_MOST_LOOKUPS:,} fields, or more than "
            f"{_BYTES_PER_BYTE} times its {_budget.size:,} bytes"
        )


_INT32 = struct.Struct("<i")
_UINT16 = struct.Struct("<H")


class MeteredTable(Table):
    """A FlatBuffers table that charges the budget for everything that is read from it.

    Reading a file spends most of its time in `Offset` and `Get`, so they skip the library's checks of types. They
    refuse negative positions, which Python would count from the end of the file.
    """

    __slots__ = ()

    def Offset(self, vtable_offset: int) -> int:  # noqa: N802
        spend(lookups=1)
        data = self.Bytes
        vtable = self.Pos - _INT32.unpack_from(data, self.Pos)[0]
        if vtable < 0:
            raise ValueError(f"a table of fields at {vtable}")
        if vtable_offset < _UINT16.unpack_from(data, vtable)[0]:
            return int(_UINT16.unpack_from(data, vtable + vtable_offset)[0])
        return 0

    def Get(self, flags: NumberType, offset: int) -> float:  # noqa: N802
        if offset < 0:
            raise ValueError(f"a value at {offset}")
        return flags.py_type(flags.packer_type.unpack_from(self.Bytes, offset)[0])

    def String(self, offset: int) -> bytes:  # noqa: N802
        text = super().String(offset)
        spend(size=len(text))
        return text

    def GetVectorAsNumpy(self, flags: type, offset: int) -> np.ndarray:  # noqa: N802
        vector = super().GetVectorAsNumpy(flags, offset)
        spend(size=vector.nbytes)
        return vector
