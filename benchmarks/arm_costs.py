"""Counts instructions of operators and networks on aarch64, on which `kbnn inspect`'s estimates and `--device` rely.

    python benchmarks/arm_costs.py count FOLDER [OPERATOR...]     operators, into results/arm_costs.csv; then as `table`
    python benchmarks/arm_costs.py table             converters/tflite/arm_costs.csv from results/arm_costs.csv
    python benchmarks/arm_costs.py networks FOLDER [NETWORK...] [--form FORM...]   whole networks, into
                                                                                   results/arm_networks.csv
    python benchmarks/arm_costs.py docs              docs/deployment.md from results/arm_networks.csv

FOLDER is a root for qemu-user: Debian's arm64 packages of python3.11-minimal, libpython3.11-minimal,
libpython3.11-stdlib, libc6, libgcc-s1, libstdc++6, zlib1g, libexpat1 and libffi8, and the aarch64 wheels of numpy 1.26
and tflite-runtime 2.14, all unpacked into it. One process for each processor runs every file twice; the second run
is counted by a plugin (instructions.c), which needs a C compiler. Counts vary by a few hundred instructions; they are
not a latency. XNNPACK chooses its kernels by the processor's name, so the root gets a /proc/cpuinfo.

LCE's operators are not in tflite-runtime. Their costs, and those of some whole networks, were counted elsewhere with
LCE's own tool, and are marked as `reported`. The total of a whole network is therefore the count of its file without
LCE's operators, plus an estimate for these.
"""

import argparse
import csv
import functools
import io
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import record

if TYPE_CHECKING:
    from kbnn.converters.tflite.flatbuffer import File

TABLE = record.ROOT / "converters" / "tflite" / "arm_costs.csv"
PROCESSORS = ("cortex-a72", "cortex-a76")
# Operators that are counted without XNNPACK, too: those in which the forms of networks differ.
_WITHOUT_XNNPACK = ("stem", "quicknet", "shortcut", "shuffle", "half")
_DEVICES = dict(zip(PROCESSORS, ("pi4", "pi5"), strict=True))
_RUNS = 2
# Implementer's part number and features, as Linux prints them on a Raspberry Pi 4 and 5.
_CPUINFO = {
    "cortex-a72": ("0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}
_PROGRAM = """
import ctypes, sys
sys.path.insert(0, {root!r})
import numpy as np
import tflite_runtime.interpreter as tflite

mark = ctypes.CDLL(None).getpgid
kinds = tflite.OpResolverType
kind = kinds.AUTO if {xnnpack} else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
for path in {paths!r}:
    interpreter = tflite.Interpreter(path, num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        values = np.random.default_rng(0).normal(size=detail["shape"])
        scale = 1 if detail["dtype"] == np.float32 else 40
        interpreter.set_tensor(detail["index"], (scale * values).astype(detail["dtype"]))
    for _ in range({runs} - 1):
        interpreter.invoke()
    mark(0x5eed)
    interpreter.invoke()
    mark(0x5eed)
"""

_PORTABLE = "LceBconv2d of presb18 in portable C++, 9"
# Parts that were counted with LCE's tool elsewhere: MACs, values, million instructions on a Cortex-A72 and -A76.
REPORTED = {
    "stem 7x7x3x64 at 224x224, LCE's tool": (118_013_952, 802_816, 72.4, None),
    "stem 7x7x3x64 at 224x224, bias through GATHER, LCE's tool": (118_013_952, 802_816, 48.5, 48.5),
    "stem 7x7x3x64 at 224x224, hybrid, LCE's tool": (118_013_952, 802_816, 45.4, 21.1),
    "LceBconv2d 3x3x64x64 at 56x56": (115_605_504, 200_704, 4.8, None),
    "LceBconv2d 3x3x128x128 at 28x28": (115_605_504, 100_352, 3.5, None),
    "LceBconv2d 3x3x256x256 at 14x14": (115_605_504, 50_176, 3.2, None),
    "LceBconv2d 3x3x512x512 at 7x7": (115_605_504, 25_088, 3.3, None),
    "LceBconv2d of bireal18, 16": (1_676_279_808, 1_505_280, 54.5, None),
    # 18 layers that read 16 to 64 channels, each a word of 64: 6.9 M and 5.0 M in all, less 1.1 M for the rest.
    "LceBconv2d of resnet20, 18": (99_090_432, 172_032, 5.8, None),
    "LceBconv2d of resnet20, 18, indirect kernel": (99_090_432, 172_032, 3.9, None),
    # 520.9 M in all, less what the other operators count.
    _PORTABLE: (924_844_032, 1_254_400, 265.7, None),
    # The rest of bireal18's figures: 1.5 M, less its pools, mean and classifier.
    "LceQuantize of bireal18, 16": (0, 1_680_896, 0.6, None),
    # 483.7 M and 197.7 M in all, less what the other operators count: 16 convolutions and 3 shortcuts.
    "convolutions of ordinary ResNet-18 in int8, without the stem": (1_695_547_392, 0, 424.0, 164.0),
    "ADD of bireal18, 16": (0, 1_505_280, 2.8, None),
    "MAX_POOL_2D 3x3 to 56x56x64, LCE's tool": (0, 200_704, 1.4, None),
    "SPLIT and CONCATENATION at 56x56x128": (0, 802_816, 1.4, None),
    "PRELU of react18, int8": (0, 1_505_280, 110.0, None),
}
# Whole networks counted with LCE's tool elsewhere, at 224x224 (resnet20: 32x32), on a Cortex-A72 and -A76.
REPORTED_NETWORKS = {
    ("bireal18", "plain"): (139.6, 136.9),
    ("bireal18", "all weights in 8 bits"): (139.6, None),
    ("bireal18", "int8 activations"): (120.7, 91.5),
    ("bireal18", "GATHER stem"): (115.6, 115.6),
    ("bireal18", "hybrid stem"): (112.5, 87.9),
    ("bireal18", "hybrid stem and shortcuts"): (112.9, 84.6),
    ("react18", "plain"): (139.1, None),
    ("react18", "GATHER stem"): (115.0, None),
    ("react18", "int8 activations, PRELU kept"): (221.8, 196.6),
    ("presb18", "grouped"): (520.9, None),
    ("presb18", "portable"): (305.4, None),
    ("presb18", "portable, GATHER stem"): (250.2, None),
    ("resnet20", "plain"): (6.9, None),
    ("resnet20", "int8 activations"): (8.7, 6.8),
    ("bireal18", "ordinary float twin"): (664.5, 638.2),
    ("bireal18", "ordinary int8 twin"): (483.7, 197.7),
}


@dataclass(frozen=True)
class Kernel:
    """A row of the table: which operators it fits, and the counts that its cost per MAC or per value comes from.

    `per` is "mac", "value", or "mac and value" for a cost of each that fits several counts best. `build` names two
    counts of the same kernel, ours and that of LCE's tool; the costs are multiplied by their ratio.
    """

    operator: str
    what: tuple[str, ...] | str
    input: str = ""
    weights: str = ""
    when: str = ""
    per: str = "value"
    note: str = ""
    # How many operators of this kind a count has.
    times: int = 1
    build: tuple[str, str] | None = None


_STEM = "stem 7x7x3x64 at 224x224"
_SMALL_STEM = "stem 3x3x3x16 at 32x32"
_NARROW_STEM = "stem 3x3x3x32 at 224x224"
_STEMS = (_STEM, _NARROW_STEM, _SMALL_STEM)
_GATHERED = ", bias through GATHER"
_SHORTCUTS = ("shortcut 1x1x64x128 at 28x28", "shortcut 1x1x128x256 at 14x14", "shortcut 1x1x256x512 at 7x7")


def _shortcuts(form: str) -> tuple[str, ...]:
    return tuple(f"{name}{form}" for name in _SHORTCUTS)


# The first row that fits an operator applies. If a kernel was counted twice, the count of LCE's tool is used.
KERNELS = (
    Kernel(
        "CONV_2D",
        (f"{_STEM}{_GATHERED}", f"{_NARROW_STEM}{_GATHERED}"),
        "float32",
        "float32",
        "few channels, without XNNPACK",
        "mac and value",
        build=(f"{_STEM}{_GATHERED}", f"{_STEM}{_GATHERED}, LCE's tool"),
    ),
    Kernel("CONV_2D", _STEMS, "float32", "float32", "few channels", "mac and value"),
    Kernel("CONV_2D", _shortcuts(", int16 weights"), "float32", "float32", "without XNNPACK", "mac"),
    Kernel("CONV_2D", (*_SHORTCUTS, "convolution 3x3x64x64 at 56x56"), "float32", "float32", "", "mac"),
    Kernel(
        "CONV_2D",
        f"{_STEM}, hybrid, one scale",
        "float32",
        "int8",
        "few channels, one scale",
        "mac",
        build=(f"{_STEM}, hybrid", f"{_STEM}, hybrid, LCE's tool"),
    ),
    Kernel(
        "CONV_2D",
        (f"{_STEM}, hybrid", f"{_NARROW_STEM}, hybrid"),
        "float32",
        "int8",
        "few channels",
        "mac and value",
        build=(f"{_STEM}, hybrid", f"{_STEM}, hybrid, LCE's tool"),
    ),
    Kernel("CONV_2D", _shortcuts(", hybrid"), "float32", "int8", "", "mac and value"),
    Kernel(
        "CONV_2D", f"{_STEM}, hybrid, LCE's tool", "int8", "int8", "few channels", "mac", note="assumed: like hybrid"
    ),
    Kernel("CONV_2D", "convolutions of ordinary ResNet-18 in int8, without the stem", "int8", "int8", "", "mac"),
    Kernel("DEPTHWISE_CONV_2D", "depthwise 3x3x64 at 56x56, int8", "int8", "", "", "mac"),
    Kernel("DEPTHWISE_CONV_2D", "depthwise 3x3x64 at 56x56", "", "", "", "mac"),
    Kernel("FULLY_CONNECTED", "dense 512x1000", "float32", "float32", "", "mac"),
    Kernel("FULLY_CONNECTED", "dense 512x1000, int8", "float32", "int8", "", "mac", note="assumed: as with int8 input"),
    Kernel("FULLY_CONNECTED", "dense 512x1000, int8", "int8", "int8", "", "mac"),
    Kernel("TRANSPOSE_CONV", "transposed 3x3x64x64 at 14x14", "", "", "", "mac"),
    Kernel("CONV_3D", "3-D 3x3x3x16x16 at 8x16x16", "", "", "", "mac"),
    Kernel("BATCH_MATMUL", "product 4x64x64 with 64x64", "", "", "", "mac"),
    Kernel("UNIDIRECTIONAL_SEQUENCE_LSTM", "dense 512x1000", "", "", "", "mac", note="assumed: like a dense layer"),
    Kernel("LceQuantize", "LceQuantize of bireal18, 16"),
    Kernel("LceBMaxPool2d", "MAX_POOL_2D 3x3 to 56x56x64", note="assumed: more than for 32 values at once"),
    Kernel("LceDequantize", "QUANTIZE and DEQUANTIZE at 56x56x64", note="assumed: like DEQUANTIZE", times=2),
    *(
        Kernel(name, f"{name} at 56x56x64, int8", "int8")
        for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "LEAKY_RELU", "LOGISTIC", "TANH")
    ),
    Kernel("PRELU", "PRELU of react18, int8", "int8"),
    Kernel("MAX_POOL_2D", "MAX_POOL_2D 3x3 to 56x56x64, int8", "int8"),
    Kernel("ADD", "ADD of bireal18, 16"),
    *(
        Kernel(name, f"{name} at 56x56x64")
        for name in (
            "SUB",
            "MUL",
            "DIV",
            "MAXIMUM",
            "MINIMUM",
            "RELU",
            "RELU6",
            "PRELU",
            "LEAKY_RELU",
            "RSQRT",
            "SQUARE",
            "ABS",
            "LOGISTIC",
            "TANH",
            "HARD_SWISH",
        )
    ),
    Kernel("QUANTIZE", "QUANTIZE and DEQUANTIZE at 56x56x64", times=2),
    Kernel("DEQUANTIZE", "QUANTIZE and DEQUANTIZE at 56x56x64", times=2),
    Kernel("SQUARED_DIFFERENCE", "SQUARED_DIFFERENCE at 56x56x64"),
    Kernel("SOFTMAX", "SOFTMAX of 1000"),
    Kernel("MAX_POOL_2D", "MAX_POOL_2D 3x3 to 56x56x64, LCE's tool"),
    Kernel("AVERAGE_POOL_2D", "AVERAGE_POOL_2D 2x2 to 28x28x64"),
    Kernel("MEAN", "MEAN of 7x7x512, int8", "int8", note="per input value"),
    Kernel("MEAN", "MEAN of 7x7x512", note="per input value"),
    Kernel("TRANSPOSE", "shuffle of 2 groups at 56x56x128, TRANSPOSE"),
    Kernel("GATHER", "shuffle of 2 groups at 56x56x128, GATHER"),
    Kernel("SPLIT", "SPLIT and CONCATENATION at 56x56x128"),
    Kernel("SPLIT_V", "SPLIT and CONCATENATION at 56x56x128"),
    Kernel("CONCATENATION", "SPLIT and CONCATENATION at 56x56x128"),
    Kernel("PAD", "PAD at 56x56x128"),
    Kernel("PADV2", "PAD at 56x56x128"),
    Kernel("STRIDED_SLICE", "STRIDED_SLICE at 56x56x64"),
    Kernel("RESIZE_NEAREST_NEIGHBOR", "RESIZE_NEAREST_NEIGHBOR to 56x56x64"),
    Kernel("RESIZE_BILINEAR", "RESIZE_BILINEAR to 56x56x64"),
    Kernel("RESHAPE", (), note="no copy"),
)


# ---- single operators ------------------------------------------------------------------------------------------------


_PIXELS = (56, 56, 64)


@functools.cache
def forms() -> dict[str, object]:
    """The files to count, by name."""
    return {**_convolutions(), **_in_float_and_int8(), **_in_float(), **_shuffles_and_halves(), **_prelus()}


def _convolutions() -> dict[str, object]:
    """Stems and shortcuts in every form that a pass gives them."""
    from arm_models import convolution, named, narrow_stem, quicknet_stem

    from kbnn.converters.passes.gathered_bias import gathered_bias
    from kbnn.converters.passes.hybrid import stored_hybrid
    from kbnn.converters.tflite.int8_weights import stored_as_int8

    found: dict[str, object] = {}
    stem = named(convolution(224, 3, 64, 7, 2))
    narrow, small = named(convolution(224, 3, 32, 3, 2)), named(convolution(32, 3, 16, 3))
    for name, file in {_STEM: stem, _NARROW_STEM: narrow, _SMALL_STEM: small}.items():
        found[name] = file
        found[f"{name}, hybrid"] = stored_hybrid(file, ["layer"])
    found[f"{_STEM}, hybrid, one scale"] = stored_hybrid(named(convolution(224, 3, 64, 7, 2, equal=True)), ["layer"])
    found[f"{_STEM}{_GATHERED}"] = gathered_bias(stem, ["layer"])
    found[f"{_NARROW_STEM}{_GATHERED}"] = gathered_bias(narrow, ["layer"])
    found[f"{_STEM}, int8 weights"] = stored_as_int8(stem)
    found[f"{_STEM}, int16 weights"] = stored_as_int8(stem, ["layer"])
    found[f"{_STEM}, int8"] = convolution(224, 3, 64, 7, 2, in_int8=True)
    found["quicknet stem at 224x224"] = quicknet_stem(224, 64)
    found["narrow stem at 224x224"] = narrow_stem(224, 64)
    found["patches stem at 224x224"] = convolution(224, 3, 64, 4, 4)
    for name, (size, channels, filters) in zip(_SHORTCUTS, ((28, 64, 128), (14, 128, 256), (7, 256, 512)), strict=True):
        file = named(convolution(size, channels, filters, 1))
        found[name] = file
        found[f"{name}, int16 weights"] = stored_as_int8(file, ["layer"])
        found[f"{name}, hybrid"] = stored_hybrid(file, ["layer"])
    return found


def _in_float_and_int8() -> dict[str, object]:
    import tensorflow as tf
    from arm_models import convolution, dense, depthwise, model, on

    found: dict[str, object] = {}
    for suffix, whole in (("", False), (", int8", True)):
        found[f"convolution 3x3x64x64 at 56x56{suffix}"] = convolution(56, 64, 64, 3, in_int8=whole)
        found[f"depthwise 3x3x64 at 56x56{suffix}"] = depthwise(56, 64, in_int8=whole)
        found[f"dense 512x1000{suffix}"] = dense(512, 1000, in_int8=whole)
        found[f"MEAN of 7x7x512{suffix}"] = model(lambda x: tf.reduce_mean(x, [1, 2]), (7, 7, 512), in_int8=whole)
        found[f"MAX_POOL_2D 3x3 to 56x56x64{suffix}"] = model(
            lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), (112, 112, 64), in_int8=whole
        )
        for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"):
            found[f"{name} at 56x56x64{suffix}"] = model(on(name), _PIXELS, _PIXELS, in_int8=whole)
        for name in ("LEAKY_RELU", "LOGISTIC", "TANH"):
            found[f"{name} at 56x56x64{suffix}"] = model(on(name), _PIXELS, in_int8=whole)
    return found


def _in_float() -> dict[str, object]:
    import tensorflow as tf
    from arm_models import model, on

    found: dict[str, object] = {}
    for name in ("RELU", "RELU6", "RSQRT", "SQUARE", "ABS", "HARD_SWISH", "QUANTIZE and DEQUANTIZE", "STRIDED_SLICE"):
        found[f"{name} at 56x56x64"] = model(on(name), _PIXELS)
    for name in ("DIV", "SQUARED_DIFFERENCE"):
        found[f"{name} at 56x56x64"] = model(on(name), _PIXELS, _PIXELS)
    found["SOFTMAX of 1000"] = model(tf.nn.softmax, (1000,))
    found["transposed 3x3x64x64 at 14x14"] = model(on("TRANSPOSE_CONV"), (14, 14, 64))
    found["3-D 3x3x3x16x16 at 8x16x16"] = model(on("CONV_3D"), (8, 16, 16, 16))
    found["product 4x64x64 with 64x64"] = model(tf.matmul, (4, 64, 64), (4, 64, 64))
    found["AVERAGE_POOL_2D 2x2 to 28x28x64"] = model(lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME"), _PIXELS)
    found["AVERAGE_POOL_2D 2x2 to 28x28x64, as RESIZE_BILINEAR"] = model(on("halving"), _PIXELS)
    found["PAD at 56x56x128"] = model(lambda x: tf.pad(x, [(0, 0), (0, 0), (0, 0), (0, 64)]), _PIXELS)
    for name in ("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"):
        found[f"{name} to 56x56x64"] = model(on(name), (28, 28, 64))
    return found


def _shuffles_and_halves() -> dict[str, object]:
    """Shuffles of channels, and additions to half of them, in several forms."""
    from arm_models import model, on, shuffle_by_transpose, shuffle_of_eighths, shuffle_of_quarters

    image = (56, 56, 128)
    found: dict[str, object] = {}
    found["shuffle of 2 groups at 56x56x128, TRANSPOSE"] = model(shuffle_by_transpose, image)
    found["shuffle of 2 groups at 56x56x128, GATHER"] = model(on("GATHER"), image)
    found["shuffle of quarters at 56x56x128, SPLIT and CONCATENATION"] = model(shuffle_of_quarters, image)
    found["shuffle of 2 groups at 56x56x128, eighths into 2 CONCATENATIONs"] = model(shuffle_of_eighths, image)
    found["shuffle of 2 groups at 56x56x128, TRANSPOSE back from eighths"] = model(on("TRANSPOSE back"), image)
    found["SPLIT at 56x56x128"] = model(on("SPLIT"), image)
    found["half added at 56x56x128, PAD and ADD"] = model(on("PAD and ADD"), image, _PIXELS)
    found["half added at 56x56x128, SPLIT, ADD and CONCATENATION"] = model(on("SPLIT and ADD"), image, _PIXELS)
    return found


def _prelus() -> dict[str, object]:
    from arm_models import model, prelu, prelu_by_maximum, prelu_by_minimum

    found: dict[str, object] = {}
    found["PRELU at 56x56x64"] = model(prelu, _PIXELS)
    found["PRELU at 56x56x64, int8"] = model(prelu, _PIXELS, in_int8=True)
    found["PRELU at 56x56x64, int8, as MUL and MAXIMUM"] = model(prelu_by_maximum, _PIXELS, in_int8=True)
    found["PRELU at 56x56x64, int8, as MINIMUM, MUL, RELU and ADD"] = model(prelu_by_minimum, _PIXELS, in_int8=True)
    return found


class Counter:
    """Counts the instructions of one inference of TensorFlow Lite files in an aarch64 root."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root.resolve(), folder
        self._plugin = folder / "instructions.so"
        source = Path(__file__).parent / "instructions.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self._plugin, source], check=True)

    def __call__(self, files: Sequence[bytes], processor: str, xnnpack: bool = True) -> list[float]:
        """Million instructions of one inference of each file.

        Raises:
            SystemExit: a file cannot be run; the message ends with what the program printed.
        """
        paths = []
        for k, data in enumerate(files):
            paths.append(str(self._folder / f"{k}.tflite"))
            Path(paths[-1]).write_bytes(data)
        self._write_cpuinfo(processor)
        program = _PROGRAM.format(root=str(self._root), xnnpack=xnnpack, paths=paths, runs=_RUNS)
        variables = (f"PYTHONHOME={self._root / 'usr'}", "OPENBLAS_NUM_THREADS=1")
        command = ["qemu-aarch64", "-cpu", processor, "-plugin", str(self._plugin), "-L", str(self._root)]
        command += [part for variable in variables for part in ("-E", variable)]
        command += [str(self._root / "usr" / "bin" / "python3.11"), "-B", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the emulated interpreter failed: {done.stderr[-2000:]}")
        marks = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("instructions ")]
        return [(after - before) / 1e6 for before, after in zip(marks[::2], marks[1::2], strict=True)]

    def _write_cpuinfo(self, processor: str) -> None:
        part, features = _CPUINFO[processor]
        entry = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
        path = self._root / "proc" / "cpuinfo"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"processor\t: {k}\n{entry}CPU revision\t: 3\n\n" for k in range(4)))


def count(root: Path, only: Sequence[str]) -> None:
    """Counts all operators, or those of some names, and writes `results/arm_costs.csv`."""
    from kbnn.converters.tflite.audit import audit
    from kbnn.converters.tflite.operators import worked_values

    files = forms()
    unknown = [name for name in only if name not in files]
    if unknown:
        raise SystemExit(f"unknown operators {unknown}: choose from {', '.join(files)}")
    with tempfile.TemporaryDirectory() as folder:
        counter, rows = Counter(root, Path(folder)), []
        for processor in PROCESSORS:
            for xnnpack in (True, False):
                chosen = {
                    name: file
                    for name, file in files.items()
                    if (not only or name in only) and (xnnpack or name.startswith(_WITHOUT_XNNPACK))
                }
                counts = counter([file.data for file in chosen.values()], processor, xnnpack) if chosen else []
                for (name, file), millions in zip(chosen.items(), counts, strict=True):
                    last = [operator for operator in file.operators if operator.operands][-1]
                    rows.append(
                        {
                            "what": name,
                            "operators": " ".join(operator.name for operator in file.operators),
                            "processor": processor,
                            "xnnpack": xnnpack,
                            "macs": sum(work.macs for work in audit(file).work),
                            "values": worked_values(last),
                            "million_instructions": f"{millions:.3f}",
                            "source": "counted",
                        }
                    )
                    print(rows[-1], flush=True)
    counted = {row["what"] for row in rows}
    kept = [row for row in record.read("arm_costs") if only and row["what"] not in counted]
    record.replace("arm_costs", rows if only else [*rows, *_reported()], kept=kept)


def _reported() -> list[dict[str, object]]:
    return [
        {
            "what": name,
            "operators": "",
            "processor": processor,
            "xnnpack": True,
            "macs": macs,
            "values": values,
            "million_instructions": millions,
            "source": "reported",
        }
        for name, (macs, values, *figures) in REPORTED.items()
        for processor, millions in zip(PROCESSORS, figures, strict=True)
        if millions is not None
    ]


# ---- the table that ships with kbnn ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Count:
    """One row of `results/arm_costs.csv`."""

    macs: int
    values: int
    millions: float
    source: str


def table() -> str:
    """`converters/tflite/arm_costs.csv`, from the rows of `results/arm_costs.csv`."""
    counts = _counts()
    rows = [*_binary_rows(counts), *(_row(kernel, counts) for kernel in KERNELS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _counts() -> dict[tuple[str, str], _Count]:
    """The rows with XNNPACK, by name and processor."""
    return {
        (row["what"], row["processor"]): _Count(
            int(row["macs"]), int(row["values"]), float(row["million_instructions"]), row["source"]
        )
        for row in record.read("arm_costs")
        if row["xnnpack"] == "True"
    }


def _row(kernel: Kernel, counts: dict[tuple[str, str], _Count]) -> dict[str, object]:
    names = (kernel.what,) if isinstance(kernel.what, str) else kernel.what
    units = tuple(kernel.per.split(" and "))
    costs: dict[str, dict[str, float]] = {unit: dict.fromkeys(PROCESSORS, 0.0) for unit in units}
    basis = ""
    for processor in PROCESSORS:
        # Kernels that were counted for the Cortex-A72 alone use no instructions that only the Cortex-A76 has.
        found = [counts.get((name, processor)) or counts[name, PROCESSORS[0]] for name in names]
        factor = 1.0
        if kernel.build is not None:
            ours, theirs = (counts.get((name, processor)) or counts[name, PROCESSORS[0]] for name in kernel.build)
            factor = theirs.millions / ours.millions
        if found:
            for unit, cost in zip(units, _fitted(found, units, kernel.times), strict=True):
                costs[unit][processor] = factor * cost
        if found and processor == PROCESSORS[0]:
            basis = f"{found[0].source}: {', '.join(names)}: {sum(each.millions for each in found):.4g} M"
            basis += "" if kernel.build is None else f"; times {factor:.3g}, as {kernel.build[1]}"
    return _cells(kernel, "; ".join(filter(None, (basis, kernel.note))), costs)


def _fitted(found: Sequence[_Count], units: Sequence[str], times: int) -> list[float]:
    """The cost per unit: of all counts together, or of each of several units so that it fits every count best."""
    loads = np.array([[each.macs if unit == "mac" else each.values for unit in units] for each in found], float)
    totals = np.array([1e6 * each.millions for each in found])
    if len(units) == 1:
        return [totals.sum() / (times * loads.sum())]
    fitted = np.linalg.lstsq(loads / totals[:, None], np.ones(len(totals)), rcond=None)[0]
    if fitted.min() < 0:
        raise SystemExit(f"negative costs {fitted} for {found}")
    return [float(cost) for cost in fitted]


def _cells(kernel: Kernel, basis: str, units: dict[str, dict[str, float]]) -> dict[str, object]:
    return {
        "operator": kernel.operator,
        "input": kernel.input,
        "weights": kernel.weights,
        "when": kernel.when,
        **{
            f"{_DEVICES[processor]}_per_{unit}": f"{units.get(unit, {}).get(processor, 0.0):.4g}"
            for unit in ("mac", "value", "copy", "call")
            for processor in PROCESSORS
        },
        "basis": basis,
    }


def _binary_rows(counts: dict[tuple[str, str], _Count]) -> list[dict[str, object]]:
    """LceBconv2d: the costs per MAC, value, copied pixel and call that fit all reported figures best, relatively."""
    pixels = [9 * size**2 for size in (56, 28, 14, 7)]
    small = 9 * 6 * (32**2 + 16**2 + 8**2)
    # Copied pixels and calls of each figure.
    layers = {
        "LceBconv2d 3x3x64x64 at 56x56": (pixels[0], 1),
        "LceBconv2d 3x3x128x128 at 28x28": (pixels[1], 1),
        "LceBconv2d 3x3x256x256 at 14x14": (pixels[2], 1),
        "LceBconv2d 3x3x512x512 at 7x7": (pixels[3], 1),
        "LceBconv2d of bireal18, 16": (4 * sum(pixels), 16),
        "LceBconv2d of resnet20, 18": (small, 18),
        "LceBconv2d of resnet20, 18, indirect kernel": (0, 18),
    }
    a72 = PROCESSORS[0]
    found = [(counts[name, a72], *more) for name, more in layers.items()]
    loads = np.array([[count.macs, count.values, copies, calls] for count, copies, calls in found], float)
    totals = np.array([1e6 * count.millions for count, *_ in found])
    mac, value, copy, call = np.linalg.lstsq(loads / totals[:, None], np.ones(len(totals)), rcond=None)[0]
    portable = counts[_PORTABLE, a72]
    rows = []
    for when, per_mac, per_copy, basis in (
        (
            "portable C++",
            (1e6 * portable.millions - value * portable.values) / portable.macs,
            0.0,
            f"reported: {_PORTABLE}",
        ),
        ("indirect", mac, 0.0, "fitted: nothing is copied"),
        ("", mac, copy, "fitted to the reported layers of bireal18 and resnet20"),
    ):
        costs = {"mac": per_mac, "value": value, "copy": per_copy, "call": call}
        units = {unit: dict.fromkeys(PROCESSORS, cost) for unit, cost in costs.items()}
        rows.append(_cells(Kernel("LceBconv2d", (), "bits", "bits", when), basis, units))
    return rows


# ---- whole networks --------------------------------------------------------------------------------------------------


def networks(root: Path, only: Sequence[str], forms: Sequence[str]) -> None:
    """Counts whole networks without LCE's operators and writes `results/arm_networks.csv`."""
    from arm_models import NETWORKS, deployments, without_lce

    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(root, Path(folder))
        for network in only or NETWORKS:
            files, rows = list(deployments(network, forms)), []
            for k, processor in enumerate(PROCESSORS):
                counts = counter([without_lce(file).data for _, file in files], processor)
                for (form, file), counted in zip(files, counts, strict=True):
                    figures = REPORTED_NETWORKS.get((network, form), (None, None))
                    rows.append(_network_row(network, form, processor, file, counted, figures[k]))
                    print(rows[-1], flush=True)
            made = {row["form"] for row in rows}
            kept = [
                row
                for row in record.read("arm_networks")
                if row["network"] != network or (forms and row["form"] not in made)
            ]
            record.replace("arm_networks", rows, kept=kept)


def _network_row(
    network: str, form: str, processor: str, file: "File", counted: float, reported: float | None
) -> dict[str, object]:
    from kbnn.converters.tflite.audit import audit

    found, device = audit(file), _DEVICES[processor]
    lce = sum(work.instructions[device] or 0.0 for work in found.work if work.operator.startswith("Lce")) / 1e6
    difference = _difference(file, processor)
    return {
        "network": network,
        "form": form,
        "processor": processor,
        "bytes": file.size_bytes,
        "estimated": f"{found.instructions[device] / 1e6:.1f}",
        "counted_without_lce": f"{counted:.1f}",
        "estimated_lce": f"{lce:.1f}",
        "build_difference": f"{difference:.1f}",
        "total": f"{counted + lce - difference:.1f}",
        "reported": "" if reported is None else reported,
    }


def _difference(file: "File", processor: str) -> float:
    """How many million more instructions a file's stem takes in tflite-runtime than in LCE's tool.

    Both run the same kernel, ruy's, in different builds.
    """
    from kbnn.converters.tflite.audit import audited_loads

    names = {
        ("float32", "few channels, without XNNPACK"): f"{_STEM}, bias through GATHER",
        ("int8", "few channels"): f"{_STEM}, hybrid",
        ("int8", "few channels, one scale"): f"{_STEM}, hybrid",
    }
    counts, total = _counts(), 0.0
    for load in audited_loads(file):
        name = names.get((load.weights, load.case)) if load.operator == "CONV_2D" and load.input == "float32" else None
        if name is not None:
            ours, theirs = counts[name, processor], counts[f"{name}, LCE's tool", processor]
            total += (ours.millions - theirs.millions) * load.macs / ours.macs
    return total


# ---- the page --------------------------------------------------------------------------------------------------------

PAGE = record.ROOT / "docs" / "deployment.md"


def page() -> str:
    """`docs/deployment.md` with the table of whole networks."""
    return record.filled(PAGE.read_text(), "arm_networks", _networks_table())


def _networks_table() -> str:
    """One line for each form of a network, with both processors side by side."""
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in record.read("arm_networks"):
        found.setdefault((row["network"], row["form"]), {})[row["processor"]] = row
    lines = [
        "| network | form | bytes | Cortex-A72 | Cortex-A76 | estimated by `kbnn inspect` | LCE's tool elsewhere |",
        "|---|---|---|---|---|---|---|",
    ]
    for (network, form), rows in sorted(found.items()):
        both = [rows.get(processor, {}) for processor in PROCESSORS]
        columns = [_both(row.get(column, "") for row in both) for column in ("estimated", "reported")]
        totals = [row.get("total", "") for row in both]
        size = f"{int(both[0]['bytes']):,}"
        lines.append(f"| {' | '.join([network, form.replace('with ', ''), size, *totals, *columns])} |")
    return "\n".join(lines)


def _both(figures: Iterable[str]) -> str:
    return " and ".join(filter(None, figures))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=("count", "table", "networks", "docs"))
    arguments.add_argument("root", type=Path, nargs="?", metavar="FOLDER", help="an aarch64 root, see above")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="operators or networks; by default all")
    arguments.add_argument("--form", action="append", default=[], help="count only this form of the networks")
    parsed = arguments.parse_args()
    if parsed.what == "docs":
        PAGE.write_text(page())
        return
    if parsed.what != "table" and parsed.root is None:
        arguments.error(f"'{parsed.what}' needs FOLDER, an aarch64 root")
    if parsed.what == "networks":
        networks(parsed.root, parsed.names, parsed.form)
        return
    if parsed.what == "count":
        count(parsed.root, parsed.names)
    TABLE.write_text(table())


if __name__ == "__main__":
    main()
