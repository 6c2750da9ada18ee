"""Damaged and hostile files raise an error; they never crash the process, nor take much time or memory."""

import dataclasses
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import attacks
import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.converters import benchmark
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import audit, audit_page, flatbuffer, interpreter, metadata
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.verify import verification
from kbnn.errors import KbnnError, UsageError
from kbnn.printable import printable

# Seconds; files that loop forever take all of them.
_LONGEST = 0.3


def mutated(data: bytes, generator: np.random.Generator):
    """Bytes flipped, cut out, repeated, overwritten or cut off."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 8)):
        place = int(generator.integers(len(changed)))
        kind = generator.choice(6, p=[0.3, 0.25, 0.2, 0.05, 0.05, 0.15])
        if kind == 0:
            changed[place] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            changed[place] = int(generator.integers(256))
        elif kind == 2:
            changed[place : place + 4] = struct.pack("<I", int(generator.integers(2**32)))
        elif kind == 3:
            del changed[place : place + int(generator.integers(1, 64))]
        elif kind == 4:
            changed[place:place] = changed[place : place + int(generator.integers(1, 64))]
        else:
            changed[place : place + 4] = struct.pack("<i", int(generator.choice([-1, 0, 2**31 - 1, -(2**31)])))
    return bytes(changed[: int(generator.integers(8, len(changed)))] if generator.random() < 0.1 else changed)


@pytest.fixture(scope="module")
def mutants(bireal_path: Path):
    data, generator = bireal_path.read_bytes(), np.random.default_rng(0)
    return [mutated(data, generator) for _ in range(1000)]


def refusals(function: Callable[[bytes], object], cases: Iterable[bytes]):
    """The one-line errors of calls, None for calls that succeed. Any other exception fails the test."""
    found = []
    for case in cases:
        try:
            function(case)
            found.append(None)
        except KbnnError as error:
            found.append(str(error))
    assert not any("\n" in message for message in found if message)
    return found


@pytest.mark.slow
def test_a_thousand_mutated_files_are_audited_or_refused(mutants: list[bytes]):
    found = refusals(lambda data: str(audit.audit(flatbuffer.parse(data))), mutants)
    assert 50 < found.count(None) < 950


@pytest.mark.slow
def test_mutated_files_are_drawn_or_refused(mutants: list[bytes]):
    found = refusals(lambda data: audit_page.page(flatbuffer.parse(data), "mutant"), mutants[::5])
    assert None in found


@pytest.mark.slow
def test_the_interpreter_runs_or_refuses_a_thousand_mutated_files(
    mutants: list[bytes], bireal: tf.keras.Model, bireal_path: Path
):
    images = [sample_networks.images(bireal, 1)]
    found = refusals(lambda data: interpreter.run(data, images, timeout=_LONGEST), mutants)
    assert found.count(None) > 50
    assert sum("it was killed by signal" in message for message in found if message) > 50
    # A valid file runs as if the damaged ones had not run before.
    np.testing.assert_allclose(interpreter.run(bireal_path.read_bytes(), images)[0], bireal(images[0]), 1e-4, 1e-5)


@pytest.mark.slow
def test_verify_survives_mutated_files(mutants: list[bytes], bireal: tf.keras.Model):
    reference, images = Reference(bireal), sample_networks.images(bireal, 2)
    found = refusals(lambda data: verification.compare(reference, flatbuffer.parse(data), images), mutants[::20])
    assert None in found


@pytest.mark.slow
def test_benchmark_survives_mutated_files(mutants: list[bytes], tmp_path: Path):
    path = tmp_path / "mutant.tflite"

    def measure(data: bytes):
        path.write_bytes(data)
        benchmark(path, runs=1, warmup=0, repeats=1)

    assert any(refusals(measure, mutants[::125]))


def shared_tables(count: int):
    """A small file that refers `count` times to one subgraph, and in it to one operator: unpacking takes forever."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.StartObject(5)
    operator = builder.EndObject()
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(3, operators, 0)
    subgraph = builder.EndObject()
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    return bytes(builder.Output())


def test_shared_tables_are_refused_before_they_are_unpacked():
    with pytest.raises(KbnnError, match="it refers to more data than it can contain"):
        flatbuffer.tree(shared_tables(20_000))
    with pytest.raises(KbnnError, match="truncated or damaged"):
        flatbuffer.parse(shared_tables(20_000))


# Runs in a child process, whose limits on processor time and memory stop a hang or an endless allocation.
INSPECT = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from kbnn.converters.tflite import audit
from kbnn.converters.tflite.audit_page import write_page
from kbnn.errors import KbnnError, UsageError
from kbnn.printable import printable
for path in map(Path, sys.argv[1:]):
    try:
        str(audit.inspect(path))
        write_page(path, path.with_suffix(".html"))
        print("ok")
    except KbnnError as error:
        print(error)
"""


def inspected(folder: Path, attacks_by_name: dict[str, bytes]):
    paths = [folder / f"{name}.tflite" for name in attacks_by_name]
    for path, data in zip(paths, attacks_by_name.values(), strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", INSPECT, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(attacks_by_name, done.stdout.splitlines(), strict=True))


@pytest.mark.slow
def test_small_files_that_claim_to_be_large(tmp_path: Path):
    found = inspected(tmp_path, {name: make() for name, make in attacks.ATTACKS.items() if name != "many_operators"})
    for name in ("shared_name", "shared_scale", "shared_inputs", "shared_metadata"):
        assert "it refers to more data than it can contain" in found.pop(name), name
    assert "a tensor of 200000 dimensions, more than 32" in found.pop("long_shape")
    assert "bytes of options, more than 4096" in found.pop("shared_options")
    assert "kernels of more than 16 times the size of the file" in found.pop("shared_kernel")
    assert set(found.values()) == {"ok"}, found


@pytest.mark.slow
def test_a_hundred_thousand_operators(tmp_path: Path):
    assert inspected(tmp_path, {"many": attacks.many_operators()}) == {"many": "ok"}
    assert (tmp_path / "many.html").stat().st_size < 4_000_000
    assert "98000 more are not" in (tmp_path / "many.html").read_text()


def test_names_cannot_control_the_terminal_or_the_page():
    file = flatbuffer.parse(attacks.foreign_text())
    html = audit_page.page(file, "hostile")
    assert "<script>" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    shown = printable(audit.audit(file), lines=True)
    assert "\x07" not in shown
    assert r"=cmd\x07" in shown


def test_names_cannot_add_lines_to_a_report():
    writer = attacks.Writer()
    # The second line is one of a report's, the third what once marked a table in notebooks.
    name = "a\nsilent fallbacks: 0\n\x1e7\x1e"
    tensors = [writer.tensor([1, 4], name) for _ in range(2)]
    found = audit.audit(flatbuffer.parse(writer.file(tensors, [writer.operator([0], [1])], [writer.custom(name)])))
    lines = str(found).splitlines()
    assert [line for line in lines if line.startswith("silent fallbacks")] == ["silent fallbacks: 0"]
    assert r"a\nsilent fallbacks: 0\n\x1e7\x1e 1" in str(found)
    assert found._repr_html_().count("<table>") == 2


def test_inputs_of_the_same_name_are_told_apart():
    writer = attacks.Writer()
    tensors = [writer.tensor([1, size], "x") for size in (4, 5, 6)]
    operators = [writer.operator([0, 1], [2])]
    data = writer.file(tensors, operators, [writer.builtin("CONCATENATION")], inputs=(0, 1), outputs=(2,))
    assert audit.audit(flatbuffer.parse(data)).inputs == {"x": (1, 4), "x:1": (1, 5)}


@pytest.mark.parametrize("special", ["/dev/zero", "fifo", "folder"])
def test_only_regular_files_are_read(special: str, tmp_path: Path):
    path = Path(special) if special.startswith("/") else tmp_path / special
    if special == "fifo":
        os.mkfifo(path)
    if special == "folder":
        path.mkdir()
    with pytest.raises(UsageError, match=r"it is not a regular file|Is a directory"):
        flatbuffer.read(path)
    with pytest.raises(UsageError):
        benchmark(path)


def test_a_file_that_is_too_large(tmp_path: Path):
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(KbnnError, match="more than the format's 2 GB"):
        flatbuffer.read(path)


def child_that(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str):
    """Replaces the child process that runs files by another program."""
    path = folder / "child.py"
    path.write_text(program)
    child = interpreter.Child(path)
    monkeypatch.setattr(interpreter, "_CHILD", child)
    return child


def test_a_child_that_crashes_is_an_error_and_is_restarted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bireal_file: File, bireal: tf.keras.Model
):
    child = child_that(monkeypatch, tmp_path, "import os, signal\ninput()\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    for _ in range(2):
        with pytest.raises(KbnnError, match="it was killed by signal 11"):
            interpreter.run(bireal_file.data, [sample_networks.images(bireal, 1)])
    child.end()


def test_a_child_that_hangs_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bireal_file: File, bireal: tf.keras.Model
):
    child = child_that(monkeypatch, tmp_path, "import time\ntime.sleep(60)\n")
    monkeypatch.setattr(interpreter, "_GRACE", 0.1)
    with pytest.raises(KbnnError, match="did not finish within 1 s"):
        interpreter.run(bireal_file.data, [sample_networks.images(bireal, 1)], timeout=1)
    child.end()


@pytest.mark.slow
def test_a_child_that_is_interrupted_does_not_answer_the_next_request(
    bireal_file: File, bireal: tf.keras.Model, monkeypatch: pytest.MonkeyPatch
):
    images = [sample_networks.images(bireal, 1)]
    process = interpreter._CHILD._started()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(interpreter._CHILD, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            interpreter.run(bireal_file.data, images)
    assert process.wait(10) != 0
    assert interpreter.run(bireal_file.data, images)[0].shape == (1, 10)


def test_metadata_whose_tables_share_vectors_is_not_read_without_end():
    """4096 graphs with 4096 tensors with 4096 entries each, in 50 kB."""
    writer = attacks.Writer()
    shared = writer.table(int8={0: 1})
    for slots in ((4, 6), (2, 3), (3,)):
        vector = writer.tables([shared] * 4096)
        shared = writer.table(dict.fromkeys(slots, vector))
    writer.builder.Finish(shared, b"M001")
    file = dataclasses.replace(
        flatbuffer.parse(attacks.foreign_text()), metadata={metadata.ENTRY: bytes(writer.builder.Output())}
    )
    with pytest.raises(KbnnError, match="refers to more data than it can contain"):
        metadata.describe(file)
    assert metadata.labels(file) == []
