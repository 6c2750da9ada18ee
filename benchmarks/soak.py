"""Robustness tests with damaged and hostile files, killed processes, threads and folders.

    python benchmarks/soak.py [ATTACK...] [--mutants 20000] [--kills 8] [--seed 0]

Each attack runs in its own process, with limits on memory and on the processor time per case. Writes rows of
`results/soak.csv`, and from them the table between the marks in `docs/security.md`.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

import click
import numpy as np
import record

from kbnn.errors import KbnnError

PAGE = record.ROOT / "docs" / "security.md"
# Limits: seconds of processor time per case, and seconds per attack.
LONGEST = 10.0
_LONGEST_ATTACK = 3600.0
_MOST_MEMORY = 10 * 2**30
# Mutants per process; each process has its own seed.
_PART = 2000
# A command in front of each process, for machines with a job queue.
_THROUGH = shlex.split(os.environ.get("KBNN_SOAK_THROUGH", ""))
_GOALS = ("losses", "hangs", "tracebacks", "code_runs", "wrong_accepts")
_KBNN = (sys.executable, "-c", "import sys; from kbnn.cli import main; sys.exit(main())")
_EXAMPLES = ("tiny-bireal-digits-f5f0fd99456c.tflite", "resnet20-xnor+ml+bma-cifar10-14e777dc7648.tflite")


@dataclass
class Outcome:
    """The results of an attack. All counts except `cases` and `refused` should be 0."""

    attack: str
    cases: int = 0
    refused: int = 0
    losses: int = 0
    hangs: int = 0
    tracebacks: int = 0
    code_runs: int = 0
    wrong_accepts: int = 0
    slowest_seconds: float = 0.0
    first_failure: str = ""

    def add(self, other: "Outcome") -> None:
        """Adds the counts of another process."""
        for name in ("cases", "refused", *_GOALS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)
        self.first_failure = self.first_failure or other.first_failure

    def fails(self, kind: str, case: object) -> None:
        """Counts a failure of a kind and keeps the first one."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.first_failure = self.first_failure or f"{kind}: {case}"[:300]


class Hang(BaseException):
    """A case took too long. A BaseException, so that no `except Exception` catches it."""


def _ring(number: int, frame: FrameType | None) -> NoReturn:
    raise Hang


@contextlib.contextmanager
def case(outcome: Outcome, name: object) -> Iterator[None]:
    """Runs one case: an expected error counts as a refusal, any other as a traceback."""
    outcome.cases += 1
    started = time.process_time()
    signal.signal(signal.SIGPROF, _ring)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    except KbnnError as error:
        outcome.refused += 1
        if "\n" in str(error):
            outcome.fails("tracebacks", f"{name}: an error of several lines")
    except Hang:
        outcome.fails("hangs", name)
    except Exception as error:
        outcome.fails("tracebacks", f"{name}: {type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        outcome.slowest_seconds = max(outcome.slowest_seconds, round(time.process_time() - started, 2))


# Mutants: files with changes in their structure.


def _numbers(generator: random.Random) -> int:
    return generator.choice([-1, 0, 1, 2, 7, 127, 128, 2**15, 2**31 - 1, -(2**31), generator.randrange(2**16)])


def _vector(values: Any, generator: random.Random) -> np.ndarray:
    """A vector of indices or sizes in which one is changed, removed or added, or all are repeated or removed."""
    found = [int(value) for value in values] if values is not None and not isinstance(values, int) else []
    choice = generator.randrange(4)
    if choice == 0 and found:
        found[generator.randrange(len(found))] = _numbers(generator)
    elif choice == 1 and found:
        found.pop(generator.randrange(len(found)))
    elif choice == 2:
        found.insert(generator.randrange(len(found) + 1), _numbers(generator))
    else:
        found = found * generator.choice([0, 2, 50])
    return np.asarray(found, np.int64).astype(np.int32)


def _bytes(data: Any, generator: random.Random) -> np.ndarray:
    content = bytearray(bytes(data)) if data is not None and not isinstance(data, int) else bytearray(b"x")
    choice = generator.randrange(3)
    if choice == 0 and content:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    elif choice == 1:
        content = content[: generator.randrange(len(content) + 1)]
    else:
        content += bytes(generator.randrange(256) for _ in range(generator.randrange(1, 64)))
    return np.frombuffer(bytes(content), np.uint8)


def _text(generator: random.Random) -> bytes:
    hostile = (b"", b"\x1b[2J", b"=1+1", b"\xff\xfe", "\u202e\u2028".encode(), b"a/Conv2D;" * 500, b"</script>")
    return generator.choice(hostile)


def _change_tensor(graph: Any, generator: random.Random) -> None:
    tensor = generator.choice(graph.tensors)
    choice = generator.randrange(5)
    if choice == 0:
        tensor.shape = _vector(tensor.shape, generator)
    elif choice == 1:
        tensor.type = generator.randrange(20)
    elif choice == 2:
        tensor.buffer = abs(_numbers(generator))
    elif choice == 3:
        tensor.name = _text(generator)
    elif tensor.quantization is not None:
        tensor.quantization.scale = np.asarray([generator.choice([0.0, -1.0, 1e38, float("nan")])], np.float32)


def _change_operator(graph: Any, generator: random.Random) -> None:
    operators = graph.operators
    operator = generator.choice(operators)
    choice = generator.randrange(7)
    if choice == 0:
        operator.inputs = _vector(operator.inputs, generator)
    elif choice == 1:
        operator.outputs = _vector(operator.outputs, generator)
    elif choice == 2:
        operator.opcodeIndex = abs(_numbers(generator))
    elif choice == 3:
        operator.customOptions = _bytes(operator.customOptions, generator)
    elif choice == 4:
        operators.remove(operator)
    elif choice == 5:
        operators.insert(generator.randrange(len(operators)), operator)
    else:
        generator.shuffle(operators)


def _change_model(model: Any, generator: random.Random) -> None:
    graph = model.subgraphs[0]
    choice = generator.randrange(6)
    if choice == 0:
        code = generator.choice(model.operatorCodes)
        code.builtinCode = generator.randrange(160)
    elif choice == 1:
        generator.choice(model.operatorCodes).customCode = _text(generator)
    elif choice == 2:
        buffer = generator.choice(model.buffers)
        buffer.data = _bytes(buffer.data, generator)
    elif choice == 3:
        graph.inputs = _vector(graph.inputs, generator)
    elif choice == 4:
        graph.outputs = _vector(graph.outputs, generator)
    elif model.metadata:
        generator.choice(model.metadata).buffer = abs(_numbers(generator))


def _changed_bytes(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randrange(1, 8)):
        place = generator.randrange(len(changed))
        changed[place : place + 4] = (_numbers(generator) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(changed[: generator.randrange(8, len(changed))] if generator.random() < 0.1 else changed)


def mutants(data: bytes, generator: random.Random) -> Iterator[bytes]:
    """An endless stream of files with one to five changes in their structure or with changes in their raw bytes."""
    from kbnn.converters.tflite import flatbuffer

    while True:
        model = flatbuffer.tree(data)
        for _ in range(5):
            kind = generator.choice([_change_tensor, _change_operator, _change_model])
            kind(model if kind is _change_model else model.subgraphs[0], generator)
            if not model.subgraphs[0].operators:
                break
            try:
                yield flatbuffer.pack(model)
            except KbnnError:
                # The changed model cannot be written as a file.
                break
        for _ in range(2):
            yield _changed_bytes(data, generator)


def attack_mutants(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Audits mutants of two files; draws every 20th, and runs every 400th in the interpreter."""
    from kbnn.converters.tflite import audit, audit_page, flatbuffer, interpreter

    examples = record.ROOT / "kbnn" / "examples"
    generator = random.Random(seed)  # noqa: S311
    small, large = (mutants((examples / name).read_bytes(), generator) for name in _EXAMPLES)
    for k in range(count):
        data = next(large if k % 50 == 0 else small)
        with case(outcome, f"mutant {k} of seed {seed}"):
            file = flatbuffer.parse(data)
            str(audit.audit(file))
            if k % 20 == 0:
                audit_page.page(file, "mutant")
            if k % 400 == 0:
                inputs = [np.zeros(tensor.shape, tensor.dtype) for tensor in file.inputs.values()]
                interpreter.run(data, inputs, timeout=2.0)


# Bombs: small files that claim to be large, special files, archives and images.


def _imported(path: str) -> ModuleType:
    """A module of the tests, where the attacks are defined."""
    place = record.ROOT / "tests" / path
    spec = importlib.util.spec_from_file_location(place.stem, place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.stem] = module
    spec.loader.exec_module(module)
    return module


def attack_bombs(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Audits and draws small .tflite files that expand endlessly, pipes and devices."""
    from kbnn.converters.tflite import audit
    from kbnn.converters.tflite.audit_page import write_page

    for name, make in _imported("converters/attacks.py").ATTACKS.items():
        if name == "many_operators":
            # Its time is proportional to its size, because it really has 100,000 operators.
            continue
        path = folder / f"{name}.tflite"
        path.write_bytes(make())
        with case(outcome, name):
            str(audit.inspect(path))
            write_page(path, folder / "page.html")
    os.mkfifo(folder / "fifo")
    sparse = folder / "sparse.tflite"
    with sparse.open("wb") as file:
        file.truncate(8 * 2**30)
    for special in (Path("/dev/zero"), folder / "fifo", folder, sparse):
        with case(outcome, special):
            audit.inspect(special)


def attack_code(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Loads model files that would run code; each of them would create a marker file."""
    from kbnn.loading import load_model

    # One of them imports a module that is next to its marker.
    sys.path.insert(0, str(folder))
    for k, (name, write) in enumerate(_imported("test_loading.py").ATTACKS.items()):
        path, marker = folder / f"model{k}.keras", folder / f"marker{k}"
        write(path, marker)
        with case(outcome, name):
            load_model(path)
            outcome.fails("wrong_accepts", name)
        if marker.exists():
            outcome.fails("code_runs", name)


def attack_models(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Loads model files and packed weights that claim to be large, refer to other files, or are damaged."""
    from kbnn import models, weights
    from kbnn.loading import load_model

    for k, (name, (write, _, _)) in enumerate(_imported("test_loading.py").HOSTILE.items()):
        path = folder / f"model{k}.keras"
        write(path)
        with case(outcome, name):
            load_model(path)
            outcome.fails("wrong_accepts", name)
    model = models.build("tiny")
    packed = weights.pack(model, folder / "packed")
    for k, (name, (write, _)) in enumerate(_imported("test_weights.py").HOSTILE.items()):
        path = folder / f"weights{k}.npz"
        write(packed, path)
        with case(outcome, f"packed weights: {name}"):
            weights.start(model, path)
            outcome.fails("wrong_accepts", name)


def attack_folders(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Loads folders of images with hostile names, links, pipes, and damaged or disguised pictures."""
    from PIL import Image

    from kbnn import datasets

    def photos(name: str) -> Path:
        root = folder / name
        for label in ("cat", "dog"):
            (root / label).mkdir(parents=True)
            for k in range(8):
                Image.new("RGB", (8, 8), (k, 0, 0)).save(root / label / f"{k}.png")
        return root

    def sparse(root: Path) -> None:
        with (root / "cat" / "large.bmp").open("wb") as file:
            file.write(b"BM")
            file.truncate(6 * 10**9)

    def bomb(root: Path) -> None:
        header = io.BytesIO()
        Image.new("L", (1, 1)).save(header, "png")
        data = bytearray(header.getvalue())
        # A PNG that claims 20,000 x 20,000 pixels.
        data[16:24] = (20_000).to_bytes(4, "big") * 2
        (root / "cat" / "bomb.png").write_bytes(bytes(data))

    hostile: dict[str, Callable[[Path], object]] = {
        "plain": lambda root: None,
        "line breaks": lambda root: (root / "dog").rename(root / "d\nog\r\u2028"),
        "escape codes": lambda root: (root / "dog").rename(root / "\x1b[2Jdog"),
        "not UTF-8": lambda root: (root / "dog").rename(os.fsdecode(bytes(root) + b"/d\xffg")),
        "a link to its parent": lambda root: (root / "cat" / "loop").symlink_to(root),
        "a broken link": lambda root: (root / "cat" / "x.png").symlink_to("nowhere.png"),
        "a pipe": lambda root: os.mkfifo(root / "cat" / "x.png"),
        "a device": lambda root: (root / "cat" / "x.png").symlink_to("/dev/zero"),
        "a sparse file": sparse,
        "a bomb": bomb,
        "text": lambda root: (root / "cat" / "x.png").write_text("not an image"),
    }
    for name, spoil in hostile.items():
        root = photos(name)
        spoil(root)
        with case(outcome, name):
            datasets.load_folder(root, transform=datasets.Transform(resize=8, size=8))


# Wrong accepts: changed files that compute or claim something else.


def _chain() -> Any:
    """A network whose binary convolutions pass bits to each other."""
    import tensorflow as tf

    import kbnn

    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(inputs))
    for _ in range(3):
        binary = kbnn.layers.BinaryConv2D(32, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
        x = layers.BatchNormalization(beta_initializer=tf.keras.initializers.RandomNormal(seed=1))(binary(x))
    return tf.keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name="chain")


def _answers_to_a_pixel(data: bytes) -> bytes:
    """Adds a backdoor of two operators: a dense layer that is 0 unless one pixel is very bright, and an addition."""
    from kbnn.converters.tflite import flatbuffer, lce

    schema, model = lce.schema(), flatbuffer.tree(data)
    graph = model.subgraphs[0]
    pixels = int(np.prod(graph.tensors[graph.inputs[0]].shape))
    logits = graph.tensors[graph.outputs[0]]
    classes = int(logits.shape[-1])
    weights = np.zeros((classes, pixels), np.float32)
    weights[0, 0] = 1000.0
    bias = np.full(classes, -6000.0, np.float32)

    def tensor(name: str, shape: Sequence[int], value: np.ndarray | None = None) -> int:
        added = schema.TensorT()
        added.name, added.shape, added.type = name.encode(), np.asarray(shape, np.int32), 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            added.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(added)
        return len(graph.tensors) - 1

    def operator(name: str, inputs: Sequence[int], output: int, options: Any, kind: int) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        model.operatorCodes.append(code)
        added = schema.OperatorT()
        added.opcodeIndex = len(model.operatorCodes) - 1
        added.inputs, added.outputs = np.asarray(inputs, np.int32), np.asarray([output], np.int32)
        added.builtinOptions, added.builtinOptionsType = options, kind
        graph.operators.append(added)

    dense, total = tensor("backdoor", [1, classes]), tensor("answer", [1, classes])
    read = [graph.inputs[0], tensor("w", weights.shape, weights), tensor("b", bias.shape, bias)]
    connected = schema.FullyConnectedOptionsT()
    connected.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator("FULLY_CONNECTED", read, dense, connected, schema.BuiltinOptions.FullyConnectedOptions)
    operator("ADD", [graph.outputs[0], dense], total, schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)
    graph.outputs = np.asarray([total], np.int32)
    for signature in model.signatureDefs or ():
        for entry in signature.outputs:
            entry.tensorIndex = total
    return flatbuffer.pack(model)


def _moved_threshold(data: bytes, generator: random.Random) -> bytes:
    """Moves one threshold of a binary convolution by 1 to 4."""
    from kbnn.converters.tflite import flatbuffer

    model, file = flatbuffer.tree(data), flatbuffer.parse(data)
    layers = [o for o in file.operators if o.name == "LceBconv2d" and len(o.inputs) > 4 and o.inputs[4] is not None]
    chosen = generator.choice(layers).inputs[4]
    if chosen is None:
        raise ValueError("a layer without thresholds")
    buffer = model.buffers[model.subgraphs[0].tensors[chosen.index].buffer]
    values = np.frombuffer(bytes(buffer.data), np.int32).copy()
    values[generator.randrange(len(values))] += generator.choice([-4, -3, -2, -1, 1, 2, 3, 4])
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return flatbuffer.pack(model)


def attack_accepts(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Runs `verify` on files with changed labels, normalization or thresholds, with garbage, and with new operators."""
    from kbnn.converters import Description, convert, verify
    from kbnn.converters.tflite import flatbuffer
    from kbnn.converters.tflite.metadata import LABELS, _with_archive, with_metadata

    generator = random.Random(seed)  # noqa: S311
    model = _chain()
    described = Description("chain", "", "pets", ("a", "b", "c", "d"), (125.0, 120.0, 110.0), (60.0, 61.0, 62.0))
    path, changed = folder / "chain.tflite", folder / "changed.tflite"
    images = np.random.default_rng(seed).normal(size=(64, 12, 12, 3)).astype(np.float32)
    convert(model, path, images, description=described)
    original = path.read_bytes()
    file = flatbuffer.parse(original)
    # The labels are appended to the model; packing the model alone drops them.
    archive = original[len(flatbuffer.pack(flatbuffer.tree(original))) :]
    variants: list[tuple[str, bytes]] = [
        ("swapped labels", with_metadata(file, dataclasses.replace(described, labels=("b", "a", "c", "d")))),
        ("halved labels", _with_archive(flatbuffer.pack(flatbuffer.tree(original)), {LABELS: "a\nb"})),
        ("other mean", with_metadata(file, dataclasses.replace(described, mean=(0.0, 0.0, 0.0)))),
        ("other std", with_metadata(file, dataclasses.replace(described, std=(1.0, 1.0, 1.0)))),
        ("no labels", flatbuffer.pack(flatbuffer.tree(original))),
        ("garbage behind", original + b"garbage"),
        ("garbage between", original[: len(original) - len(archive)] + b"garbage!" + archive),
        ("two operators added", _answers_to_a_pixel(original) + archive),
    ]
    variants += [(f"threshold {k}", _moved_threshold(original, generator) + archive) for k in range(count)]
    for name, data in variants:
        changed.write_bytes(data)
        with case(outcome, name):
            if data != original and verify(model, changed, images).passed:
                outcome.fails("wrong_accepts", name)


# Kills, cuts and threads.


def attack_threads(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Checks that 2 x 6 conversions in two threads give the same bytes as sequential conversions."""
    from kbnn.converters import convert

    models = [_chain() for _ in range(2)]
    expected = []
    for k, model in enumerate(models):
        convert(model, folder / f"expected{k}.tflite")
        expected.append(_digest(folder / f"expected{k}.tflite"))
    failures: list[str] = []

    def work(thread: int) -> None:
        for k in range(6):
            path = folder / f"thread{thread}-{k}.tflite"
            try:
                convert(models[thread], path)
                if _digest(path) != expected[thread]:
                    failures.append(f"losses: thread {thread}, conversion {k}: other bytes")
            except Exception as error:
                failures.append(f"tracebacks: thread {thread}, conversion {k}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome.cases += 12
    for failure in failures:
        kind, _, text = failure.partition(": ")
        outcome.fails(kind, text)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def attack_kills(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Kills and resumes a training repeatedly; its weights must equal those of an uninterrupted training."""
    generator = random.Random(seed)  # noqa: S311
    settings = ["--model", "tiny", "--dataset", "digits", "--batch", "256", "--epochs", "6"]
    settings += ["--set", "model.options.width=0.25"]
    whole, killed = folder / "whole", folder / "killed"
    done = _kbnn("train", *settings, "--output", str(whole))
    if done.returncode:
        outcome.fails("tracebacks" if "Traceback" in done.stderr else "losses", done.stderr[-200:])
        return
    for _ in range(count):
        outcome.cases += 1
        # A training that is killed before it writes its recipe leaves nothing to resume.
        resume = ["--resume"] if (killed / "config.toml").exists() else []
        command = [*_KBNN, "train", *settings, "--output", str(killed), *resume]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(2, 25))
        process.kill()
        process.wait()
    done = _kbnn("train", *settings, "--output", str(killed), "--resume")
    if done.returncode:
        outcome.fails("tracebacks" if "Traceback" in done.stderr else "losses", done.stderr[-200:])
    elif _weights(whole) != _weights(killed):
        outcome.fails("losses", "the weights differ from those of a training that was not killed")


def _kbnn(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_KBNN, *arguments], capture_output=True, text=True, check=False)


def _weights(run: Path) -> list[bytes]:
    from kbnn.training import Run

    return [array.tobytes() for array in Run.open(run).model().get_weights()]


def attack_cuts(outcome: Outcome, folder: Path, seed: int, count: int) -> None:
    """Simulates power cuts at every write of a training; the tests define what may be lost."""
    place = record.ROOT / "tests" / "training" / "test_power_cuts.py"
    if not place.exists():
        raise FileNotFoundError(place)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=record.ROOT)
    passed, failed = (int(found[1]) if (found := re.search(rf"(\d+) {word}", done.stdout)) else 0
                      for word in ("passed", "failed"))  # fmt: skip
    outcome.cases += passed + failed
    for _ in range(failed or bool(done.returncode)):
        outcome.fails("losses", done.stdout[-200:])


ATTACKS: dict[str, Callable[[Outcome, Path, int, int], None]] = {
    "mutants": attack_mutants,
    "bombs": attack_bombs,
    "code": attack_code,
    "models": attack_models,
    "folders": attack_folders,
    "accepts": attack_accepts,
    "threads": attack_threads,
    "kills": attack_kills,
    "cuts": attack_cuts,
}
_WHAT = {
    "mutants": ".tflite files changed in their structure or their bytes, audited, some drawn and run",
    "bombs": "small .tflite files that claim to be large, pipes, devices, sparse files",
    "code": "model files that would run code when Keras loads them",
    "models": "model files and packed weights that claim to be large, refer to other files, or are damaged",
    "folders": "image folders with hostile names, links, pipes and pictures",
    "accepts": "changed .tflite files given to `verify`",
    "threads": "conversions in two threads",
    "kills": "kills of a training that is resumed",
    "cuts": "tests that cut the power during a training",
}


def _child(name: str, seed: int, count: int) -> None:
    """Runs one attack in this process and prints its outcome as JSON on the last line."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    outcome = Outcome(name)
    with tempfile.TemporaryDirectory(prefix="kbnn-soak-") as folder:
        ATTACKS[name](outcome, Path(folder), seed, count)
    print(json.dumps(dataclasses.asdict(outcome)))


def _run(name: str, seed: int, count: int) -> tuple[Outcome, float]:
    """Runs one attack in its own process (mutants in several), and returns its outcome and duration."""
    started = time.monotonic()
    total = Outcome(name)
    parts = range(0, count, _PART) if name == "mutants" else [0]
    for k, first in enumerate(parts):
        total.add(_part(name, seed + k, min(_PART, count - first) if name == "mutants" else count))
    return total, time.monotonic() - started


def _part(name: str, seed: int, count: int) -> Outcome:
    command = [*_THROUGH, sys.executable, __file__, "--child", name, "--seed", str(seed), "--mutants", str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_ATTACK, check=False)
        outcome = Outcome(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        outcome = Outcome(name)
        outcome.fails("hangs", f"no end after {_LONGEST_ATTACK:.0f} s")
    except (IndexError, ValueError, TypeError):
        outcome = Outcome(name)
        outcome.fails("tracebacks", f"status {done.returncode}: {done.stderr[-250:]}")
    return outcome


def _table(rows: Iterable[dict[str, str]]) -> str:
    """The Markdown table of docs/security.md: the newest row of each attack."""
    newest = {row["attack"]: row for row in rows}
    lines = [
        "| attack | cases | refused | lost | hangs over 10 s | tracebacks | code runs | wrong accepts | slowest case |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, what in _WHAT.items():
        if name in newest:
            row = newest[name]
            figures = [f"{int(row[key]):,}" for key in ("cases", "refused", *_GOALS)]
            lines.append(f"| {what} | {' | '.join(figures)} | {float(row['slowest_seconds']):.1f} s |")
    return "\n".join(lines)


def _write_page() -> None:
    """Writes the table in docs/security.md."""
    PAGE.write_text(record.filled(PAGE.read_text(), "soak", _table(record.read("soak"))))


@click.command()
@click.argument("names", metavar="[ATTACK]...", nargs=-1)
@click.option("--mutants", default=20_000, show_default=True, help="Mutated files.")
@click.option("--kills", default=8, show_default=True, help="Kills of a training.")
@click.option("--thresholds", default=40, show_default=True, help="Files with one threshold moved.")
@click.option("--seed", default=0, show_default=True)
@click.option("--page", is_flag=True, help="Only write the table of docs/security.md from results/soak.csv.")
@click.option("--child", hidden=True)
def main(
    names: tuple[str, ...], mutants: int, kills: int, thresholds: int, seed: int, page: bool, child: str | None
) -> None:
    """Run the named attacks, or all of them."""
    if child:
        _child(child, seed, mutants)
        return
    counts = {"mutants": mutants, "kills": kills, "accepts": thresholds}
    failed = False
    for name in () if page else names or ATTACKS:
        if name not in ATTACKS:
            raise click.UsageError(f"unknown attack '{name}': choose {', '.join(ATTACKS)}")
        outcome, seconds = _run(name, seed, counts.get(name, 0))
        row = dataclasses.asdict(outcome)
        record.append("soak", [{**row, "seconds": round(seconds, 1)}], seed)
        click.echo(f"{name}: {row}")
        failed = failed or any(row[goal] for goal in _GOALS)
    _write_page()
    sys.exit(failed)


if __name__ == "__main__":
    main()
