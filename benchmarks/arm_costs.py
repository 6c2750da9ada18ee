"""Counts instructions of single TensorFlow Lite operators on aarch64, the basis of `kbnn convert --device`.

.venv/bin/python benchmarks/arm_costs.py FOLDER

FOLDER is a root for qemu-user: Debian's arm64 packages of python3.11-minimal, libpython3.11-stdlib, libc6, libstdc++6,
zlib1g, libexpat1 and libffi8, and the aarch64 wheels of numpy 1.26 and tflite-runtime 2.14, all unpacked into it. One
process for each processor, with and without XNNPACK, runs every model three times; a plugin (instructions.c), which
needs a C compiler, counts the last run. Counts are deterministic up to a few hundred instructions; they are not
latencies.

tflite-runtime does not have LCE's operators. The whole networks in `REPORTED` were counted elsewhere with LCE's tool.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import record
import tensorflow as tf

from kbnn.converters.passes.gathered_bias import gathered_bias
from kbnn.converters.passes.hybrid import stored_hybrid
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.int8_weights import stored_as_int8

PROCESSORS = ("cortex-a72", "cortex-a76")
_RANDOM = np.random.default_rng(0)
_RUNS = 3

# Million instructions of whole networks at 224x224 (ResNet-20: 32x32): network, form, Cortex-A72, Cortex-A76.
REPORTED = [
    ("bireal18", "float rest", 139.6, 136.9),
    ("bireal18", "float rest, without XNNPACK", 121.2, None),
    ("bireal18", "--weights int8, all weights in 8 bits", 139.6, None),
    ("bireal18", "--int8", 120.7, 91.5),
    ("bireal18", "stem's bias through a GATHER", 115.6, 115.6),
    ("bireal18", "hybrid stem", 112.5, 87.9),
    ("bireal18", "hybrid stem and shortcuts", 112.9, 84.6),
    ("react18", "float rest", 139.1, None),
    ("react18", "--int8", 221.8, 196.6),
    ("react18", "stem's bias through a GATHER", 115.0, None),
    ("presb18", "grouped, indirect kernel", 520.9, None),
    ("presb18", "portable", 305.4, None),
    ("presb18", "portable, stem's bias through a GATHER", 250.2, None),
    ("resnet20", "float rest", 6.9, None),
    ("resnet20", "float rest, indirect kernel", 5.0, None),
    ("resnet20", "--int8", 8.7, 6.8),
    ("ordinary ResNet-18", "float32", 664.5, 638.2),
    ("ordinary ResNet-18", "int8", 483.7, 197.7),
    ("bireal18", "int8 twin", 568.4, 282.4),
]

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


def forms() -> dict[str, File]:
    """The models to count, by name."""
    stem = _stem(224, 64, 7)
    image, half, pixels = (56, 56, 128), (56, 56, 64), (56, 56, 64)
    return {
        "stem 7x7x3x64 at 224x224": stem,
        "stem 7x7x3x64 at 224x224, bias through GATHER": gathered_bias(stem, ["stem"]),
        "stem 7x7x3x64 at 224x224, int8 weights": stored_as_int8(stem),
        "stem 7x7x3x64 at 224x224, int16 weights": stored_as_int8(stem, ["stem"]),
        "stem 7x7x3x64 at 224x224, hybrid": stored_hybrid(stem, ["stem"]),
        "stem 3x3x3x16 at 32x32": _stem(32, 16, 3, strides=1),
        "stem 3x3x3x16 at 32x32, hybrid": stored_hybrid(_stem(32, 16, 3, strides=1), ["stem"]),
        "shortcut 1x1x64x128 at 28x28": _shortcut(),
        "shortcut 1x1x64x128 at 28x28, int16 weights": stored_as_int8(_shortcut(), ["stem"]),
        "shortcut 1x1x64x128 at 28x28, hybrid": stored_hybrid(_shortcut(), ["stem"]),
        "shuffle of 2 groups at 56x56x128, TRANSPOSE": _model(_transposed, image),
        "shuffle of 2 groups at 56x56x128, GATHER": _model(_gathered, image),
        "shuffle of quarters at 56x56x128, SPLIT and CONCATENATION": _model(_quarters, image),
        "half added at 56x56x128, PAD and ADD": _model(_padded, image, half),
        "half added at 56x56x128, SPLIT, ADD and CONCATENATION": _model(_split, image, half),
        "PReLU at 56x56x64": _model(_prelu, pixels),
        "PReLU at 56x56x64, int8": _model(_prelu, pixels, in_int8=True),
        "PReLU at 56x56x64, int8, MUL and MAXIMUM": _model(_prelu_by_maximum, pixels, in_int8=True),
        "PReLU at 56x56x64, int8, MINIMUM, MUL, RELU and ADD": _model(_prelu_by_minimum, pixels, in_int8=True),
        "LeakyReLU at 56x56x64, int8": _model(tf.nn.leaky_relu, pixels, in_int8=True),
        "ADD at 56x56x64": _model(tf.add, pixels, pixels),
        "ADD at 56x56x64, int8": _model(tf.add, pixels, pixels, in_int8=True),
    }


def count(root: Path, plugin: Path, paths: Sequence[Path], processor: str, xnnpack: bool) -> list[int]:
    """The instructions of one inference of each file."""
    program = _PROGRAM.format(root=str(root), xnnpack=xnnpack, paths=list(map(str, paths)), runs=_RUNS)
    python = root / "usr" / "bin" / "python3.11"
    emulator = ["qemu-aarch64", "-cpu", processor, "-plugin", str(plugin), "-L", str(root)]
    variables = [f"PYTHONHOME={root / 'usr'}", "OPENBLAS_NUM_THREADS=1"]
    settings = [part for variable in variables for part in ("-E", variable)]
    done = subprocess.run(
        [*emulator, *settings, python, "-B", "-c", program], capture_output=True, text=True, check=True
    )
    marks = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("instructions ")]
    return [after - before for before, after in zip(marks[::2], marks[1::2], strict=True)]


def _stem(size: int, filters: int, kernel: int, strides: int = 2) -> File:
    weights = _RANDOM.normal(size=(kernel, kernel, 3, filters)).astype(np.float32)
    bias = _RANDOM.normal(size=filters).astype(np.float32)
    return _named(_model(lambda x: tf.nn.bias_add(tf.nn.conv2d(x, weights, strides, "SAME"), bias), (size, size, 3)))


def _shortcut() -> File:
    weights = _RANDOM.normal(size=(1, 1, 64, 128)).astype(np.float32)
    bias = _RANDOM.normal(size=128).astype(np.float32)
    return _named(_model(lambda x: tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "VALID"), bias), (28, 28, 64)))


def _transposed(x: tf.Tensor) -> tf.Tensor:
    _, height, width, channels = x.shape
    y = tf.transpose(tf.reshape(x, [1, height, width, 2, channels // 2]), [0, 1, 2, 4, 3])
    return tf.reshape(y, [1, height, width, channels])


def _gathered(x: tf.Tensor) -> tf.Tensor:
    return tf.gather(x, np.arange(x.shape[-1]).reshape(2, -1).T.ravel(), axis=3)


def _quarters(x: tf.Tensor) -> tf.Tensor:
    first, second, third, fourth = tf.split(x, 4, -1)
    return tf.concat([first, third, second, fourth], -1)


def _padded(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return x + tf.pad(y, [(0, 0), (0, 0), (0, 0), (0, y.shape[-1])])


def _split(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    first, second = tf.split(x, 2, -1)
    return tf.concat([first + y, second], -1)


_SLOPES = _RANDOM.uniform(0.1, 0.5, (1, 1, 64)).astype(np.float32)


def _prelu(x: tf.Tensor) -> tf.Tensor:
    """As Keras computes it, which the converter turns into one operator."""
    return tf.nn.relu(x) + -tf.constant(_SLOPES) * tf.nn.relu(-x)


def _prelu_by_maximum(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(x, x * _SLOPES.ravel())


def _prelu_by_minimum(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(x) + tf.minimum(x, 0.0) * _SLOPES.ravel()


def _model(function: Callable[..., tf.Tensor], *shapes: tuple[int, ...], in_int8: bool = False) -> File:
    """A function of one sample as a plain TensorFlow Lite file."""
    module = tf.Module()
    specs = [tf.TensorSpec([1, *shape], tf.float32, name=f"x{k}") for k, shape in enumerate(shapes)]
    module.call = tf.function(lambda *inputs: function(*inputs), autograph=False).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call], module)
    if in_int8:
        samples = [[_RANDOM.normal(size=(1, *shape)).astype(np.float32) for shape in shapes] for _ in range(4)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return flatbuffer.parse(converter.convert())


def _named(file: File) -> File:
    """The file, with its only kernel named as in kbnn's files."""
    model = flatbuffer.tree(file.data)
    model.subgraphs[0].tensors[file.operators[-1].inputs[1].index].name = b"stem/kernel"
    return flatbuffer.parse(flatbuffer.pack(model))


def _rows(root: Path, folder: Path) -> list[dict[str, object]]:
    files = forms()
    paths = []
    for k, file in enumerate(files.values()):
        paths.append(folder / f"{k}.tflite")
        paths[-1].write_bytes(file.data)
    plugin = folder / "instructions.so"
    source = Path(__file__).parent / "instructions.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, source], check=True)
    rows: list[dict[str, object]] = []
    for processor in PROCESSORS:
        for xnnpack in (True, False):
            counts = count(root, plugin, paths, processor, xnnpack)
            for (name, file), instructions in zip(files.items(), counts, strict=True):
                operators = " ".join(operator.name for operator in file.operators)
                row = {"what": name, "operators": operators, "processor": processor, "xnnpack": xnnpack}
                rows.append({**row, "million_instructions": f"{instructions / 1e6:.3f}", "source": "counted"})
                print(rows[-1], flush=True)
    return rows


def _reported() -> list[dict[str, object]]:
    return [
        {
            "what": f"{network}, {form}",
            "operators": "",
            "processor": processor,
            "xnnpack": "without XNNPACK" not in form,
            "million_instructions": figure,
            "source": "reported, counted with LCE's tool",
        }
        for network, form, *figures in REPORTED
        for processor, figure in zip(PROCESSORS, figures, strict=True)
        if figure is not None
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("root", type=Path, metavar="FOLDER", help="an aarch64 root, see above")
    root = arguments.parse_args().root.resolve()
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(root, Path(folder))
    record.replace("arm_costs", [*rows, *_reported()])


if __name__ == "__main__":
    main()
