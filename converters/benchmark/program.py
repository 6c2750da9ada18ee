"""Reads from a tool's executable file where it can run, without running it."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from kbnn.errors import UsageError

_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_LOADER_SEGMENT = 3
# The tools in LCE's releases have 5 MB.
_LARGEST = 2**29
Version = tuple[int, int]


@dataclass(frozen=True)
class Executable:
    """An executable file.

    `architecture` and `word_bits` are None for a script. `loader` is the dynamic loader that the program needs, "" if
    it is linked statically; `glibc` is the version of the C library that it needs.
    """

    path: Path
    architecture: str | None = None
    word_bits: int | None = None
    loader: str = ""
    glibc: Version | None = None

    @property
    def for_android(self) -> bool:
        return self.loader.startswith("/system/")

    @property
    def needs_glibc(self) -> bool:
        return "/ld-linux" in self.loader


def read_program(path: Path) -> Executable:
    """Reads the properties of an executable file.

    Raises:
        UsageError: there is no such file, or it is not a program for Linux or Android.
    """
    if not path.is_file():
        raise UsageError(f"no benchmark tool at '{path}': download lce_benchmark_model from LCE's releases")
    if path.stat().st_size > _LARGEST:
        raise UsageError(f"'{path}' is not a benchmark tool: it has more than {_LARGEST >> 20} MB; download it again")
    content = path.read_bytes()
    if content.startswith(b"#!"):
        return Executable(path)
    if not content.startswith(b"\x7fELF"):
        raise UsageError(
            f"'{path}' is not a program for Linux or Android: it begins with {content[:16]!r}; "
            f"download the release file itself, not the page that shows it"
        )
    try:
        return _elf(path, content)
    except (struct.error, ArithmeticError, LookupError, ValueError) as error:
        raise UsageError(f"'{path}' is cut off after {len(content)} bytes; download it again") from error


def _elf(path: Path, content: bytes) -> Executable:
    wide = content[4] == 2
    order = "<" if content[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", content, 18)
    versions = [(int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", content)]
    return Executable(
        path=path,
        architecture=_MACHINES.get(machine, f"machine {machine}"),
        word_bits=64 if wide else 32,
        loader=_loader(content, wide, order),
        glibc=max(versions, default=None),
    )


def _loader(content: bytes, wide: bool, order: str) -> str:
    """The PT_INTERP segment."""
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), content, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", content, 54 if wide else 42)
    for index in range(count):
        segment = table + index * size
        (kind,) = struct.unpack_from(order + "I", content, segment)
        if kind == _LOADER_SEGMENT:
            (start,) = struct.unpack_from(order + ("Q" if wide else "I"), content, segment + (8 if wide else 4))
            return content[start : content.index(b"\0", start)].decode(errors="replace")
    return ""
