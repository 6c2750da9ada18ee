"""Reads from real executable files which processor and system they need."""

import contextlib
import os
from pathlib import Path

import pytest
from benchmark_tools import compile_probe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbnn.converters.benchmark.program import Executable, read_program
from kbnn.errors import UsageError


def test_program_for_this_machine(probe: Path):
    program = read_program(probe)
    assert program.architecture == os.uname().machine
    assert program.word_bits == 64
    assert program.glibc >= (2, 0)
    assert program.needs_glibc
    assert not program.for_android


@pytest.mark.parametrize(("options", "loader"), [((), "/lib/ld-linux-aarch64.so.1"), (("-static",), "")])
def test_program_for_arm(tmp_path: Path, options: tuple[str, ...], loader: str):
    program = read_program(compile_probe(tmp_path, "aarch64-linux-gnu-gcc", *options))
    assert (program.architecture, program.word_bits, program.loader) == ("aarch64", 64, loader)


def test_script(tmp_path: Path):
    script = tmp_path / "tool"
    script.write_text("#!/bin/sh\n")
    assert read_program(script) == Executable(script)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no benchmark tool at"),
        (b"<!DOCTYPE html><html>", "download the release file itself"),
        (b"", "is not a program"),
        (b"\x7fELF\x02\x01", "is cut off after 6 bytes"),
    ],
)
def test_files_that_are_not_programs(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "tool"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_program(path)


@given(st.integers(0, 2000), st.binary(max_size=64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damaged_programs_are_refused_or_read(probe: Path, tmp_path: Path, length: int, damage: bytes):
    content = bytearray(probe.read_bytes()[:length])
    content[16 : 16 + len(damage)] = damage
    path = tmp_path / "tool"
    path.write_bytes(bytes(content))
    with contextlib.suppress(UsageError):
        assert isinstance(read_program(path), Executable)
