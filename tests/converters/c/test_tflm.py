"""Runs LCE files in TensorFlow Lite Micro, whose sources come with the crate tfmicro (.ci/packages)."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import cores
import numpy as np
import pytest
import sample_networks
from flatbuffers import flexbuffers
from operators import Builder, run

from kbnn.converters import convert, export_c
from kbnn.converters.c.export import _HERE as KERNELS
from kbnn.converters.tflite import interpreter

pytestmark = pytest.mark.slow

CRATE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kbnn" / "tfmicro-0.1.0"
TENSORFLOW = CRATE / "submodules" / "tensorflow"
LITE = TENSORFLOW / "tensorflow" / "lite"
DOWNLOADS = LITE / "micro" / "tools" / "make" / "downloads"
layers = sample_networks.layers


def sources():
    folders = ("micro", "micro/kernels", "micro/memory_planner", "core/api")
    found = [path for folder in folders for path in sorted((LITE / folder).glob("*.cc"))]
    found += [LITE / "kernels/kernel_util.cc", LITE / "kernels/internal/quantization_util.cc", LITE / "c/common.c"]
    return [path for path in found if not any(part in path.name for part in ("test", "debug_log", "debug_tools"))]


def build(compiler, flags, folder):
    """The objects of TensorFlow Lite Micro, of our operators, and of the program."""
    include = [TENSORFLOW, DOWNLOADS / "flatbuffers/include", DOWNLOADS / "gemmlowp", DOWNLOADS / "ruy"]
    options = ["-std=c++11", "-O1", "-w", "-fno-rtti", "-fno-exceptions", "-fpermissive", "-fno-use-cxa-atexit"]
    options += ["-ffunction-sections", "-fdata-sections", "-DTF_LITE_STATIC_MEMORY", "-DTF_LITE_MCU_DEBUG_LOG"]
    options += ["-DGEMMLOWP_ALLOW_SLOW_SCALAR_FALLBACK", *(f"-I{path}" for path in include)]
    options += [f"-I{KERNELS}", f"-I{KERNELS / 'tflm'}"]
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in [*sources(), KERNELS / "tflm" / "kbnn_tflm.cc", Path(__file__).with_name("tflm_main.cc")]:
        objects.append(folder / f"{source.stem}.o")
        ours = TENSORFLOW not in source.parents
        if ours or not objects[-1].exists():
            subprocess.run([compiler, *flags, *options, "-x", "c++", "-c", source, "-o", objects[-1]], check=True)
    kernels = folder / "kbnn_nn.o"
    plain = compiler.replace("g++", "gcc")
    subprocess.run([plain, *flags, "-std=c99", "-O2", "-c", KERNELS / "kbnn_nn.c", "-o", kernels], check=True)
    return [*objects, kernels]


def pooled():
    """Residual, with bits between two convolutions, and without operators that this version lacks in int8."""
    image = sample_networks.tf.keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Add(name="add1")([x, sample_networks.convolution(x, 32, "conv1")])
    x = sample_networks.convolution(x, 40, "conv2")
    x = layers.MaxPooling2D(2, name="max")(x)
    x = sample_networks.convolution(x, 16, "conv3")
    x = layers.AveragePooling2D(6, name="pool")(x)
    logits = layers.Dense(10, name="logits")(layers.Flatten(name="flat")(x))
    return sample_networks.randomized(sample_networks.tf.keras.Model(image, logits, name="pooled"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A file in float and one in int8, and images."""
    model, folder = pooled(), tmp_path_factory.mktemp("tflm")
    convert(model, folder / "float.tflite")
    calibration = sample_networks.images(model, 64, seed=2)
    convert(
        model, folder / "int8.tflite", sample_networks.images(model), calibration=calibration, device="microcontroller"
    )
    return folder, sample_networks.images(model, 4, seed=4)


def outputs(program, name, networks, work):
    """The outputs of a program, and those of LCE's interpreter."""
    folder, images = networks
    shutil.copy(folder / f"{name}.tflite", work / "model.tflite")
    (work / "input.bin").write_bytes(images.astype(np.float32).tobytes())
    done = subprocess.run(program, cwd=work, capture_output=True, text=True, timeout=300)
    assert "DONE" in done.stdout + done.stderr, (done.stdout + done.stderr)[-300:]
    found = np.frombuffer((work / "output.bin").read_bytes(), np.float32)
    expected = interpreter.run((folder / f"{name}.tflite").read_bytes(), [images], kernel="reference")[0]
    return found.reshape(expected.shape), expected


def check(program, networks, work):
    found, expected = outputs(program, "float", networks, work)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))
    found, expected = outputs(program, "int8", networks, work)
    # Its real-valued convolutions round ties the other way: some values are one level apart.
    levels = np.unique(np.abs(np.diff(np.sort(expected.ravel()))))
    step = levels[levels > 1e-6].min()
    assert np.abs(found - expected).max() <= 2.5 * step
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.75


@pytest.fixture
def crate():
    if not LITE.is_dir():
        pytest.skip(f"the crate tfmicro is not at {CRATE}: .ci/packages fetches it")


def test_on_the_host(crate, networks, tmp_path):
    objects = build("g++", (), CRATE.parent / "tfmicro-host")
    subprocess.run(["g++", *objects, "-o", tmp_path / "run"], check=True)
    check([tmp_path / "run"], networks, tmp_path)


def test_on_a_cortex_m3(crate, networks, tmp_path):
    core = next(core for core in cores.CORES if core.name == "cortex-m3")
    if core.missing is not None:
        pytest.skip(f"{core.missing} is not installed")
    probe = ["arm-none-eabi-g++", *core.flags, "-x", "c++", "-fsyntax-only", "-include", "cstddef", os.devnull]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("libstdc++-arm-none-eabi-newlib is not installed")
    objects = build("arm-none-eabi-g++", core.flags, CRATE.parent / "tfmicro-cortex-m3")
    startup = tmp_path / "startup.o"
    folder = Path(cores.__file__).parent / "cores"
    hosted = ["-DHOSTED", "-std=c99", "-O2", "-c", folder / "startup_arm.c"]
    subprocess.run(["arm-none-eabi-gcc", *core.flags, *hosted, "-o", startup], check=True)
    link = ["--specs=rdimon.specs", "-nostartfiles", "-T", folder / "arm.ld", "-Wl,--gc-sections"]
    link.append(f"-Wl,--defsym=ram_bytes={core.ram_bytes},--no-warn-rwx-segments")
    program = tmp_path / "run.elf"
    subprocess.run(["arm-none-eabi-g++", *core.flags, *link, startup, *objects, "-lm", "-o", program], check=True)
    check([core.emulator, *core.machine, "-nographic", "-kernel", program], networks, tmp_path)


def test_the_operators_come_with_an_export(bireal_path, bireal, tmp_path):
    calibration = sample_networks.images(bireal, 64, seed=2)
    export_c(bireal, tmp_path / "out", name="net", calibration=calibration, tflm=True)
    assert {"kbnn_tflm.h", "kbnn_tflm.cc", "net.c"} <= {path.name for path in (tmp_path / "out").iterdir()}


LATER = Path(__file__).with_name("later_tflm")


def graph_header(file):
    """A file's tensors and operators as C++."""
    kinds = {
        "bool": ("bool", "kTfLiteBool"),
        "int8": ("int8_t", "kTfLiteInt8"),
        "int32": ("int32_t", "kTfLiteInt32"),
        "float32": ("float", "kTfLiteFloat32"),
    }
    lines, rows = [], []
    for tensor in file.tensors:
        ctype, kind = kinds[tensor.dtype]
        values = [0] * math.prod(tensor.shape) if tensor.data is None else tensor.value().ravel().tolist()
        listed = ", ".join(map(repr, values))
        lines.append(f"static {ctype} data{tensor.index}[] = {{{listed}}};")
        sizes = ", ".join(map(str, tensor.shape))
        lines.append(f"static TfLiteIntArray dims{tensor.index} = {{{len(tensor.shape)}, {{{sizes}}}}};")
        scale, zero = (tensor.scales[0], tensor.zero_points[0]) if tensor.scales else (0.0, 0)
        data = f"{{reinterpret_cast<char*>(data{tensor.index})}}"
        rows.append(f"{{{kind}, {data}, &dims{tensor.index}, {{{scale}f, {zero}}}, sizeof(data{tensor.index})}}")
    lines.append(f"static TfLiteTensor tensors[] = {{{', '.join(rows)}}};")
    rows = []
    for operator in file.operators:
        options = bytes(flexbuffers.Dumps(operator.options))
        name = f"options{operator.index}"
        lines.append(f"static const unsigned char {name}[] = {{{', '.join(map(str, options))}}};")
        read = [-1 if tensor is None else tensor.index for tensor in operator.inputs]
        inputs = f"{{{len(read)}, {{{', '.join(map(str, read))}}}}}"
        outputs = f"{{1, {{{operator.outputs[0].index}}}}}"
        rows.append(f'{{"{operator.name}", {inputs}, {outputs}, {name}, {len(options)}}}')
    lines.append(f"static Operator operators[] = {{{', '.join(rows)}}};")
    lines.append(f"enum {{ OPERATORS = {len(rows)}, IMAGE = {file.inputs['image'].index} }};")
    return "\n".join([*lines, f"enum {{ RESULT = {file.outputs['out'].index} }};"])


@pytest.mark.parametrize("registration", [False, True], ids=["TfLiteRegistration", "TFLMRegistration"])
def test_the_later_api(registration, crate, tmp_path):
    """Against declarations of the API of 2021 and of 2023, whose sources no package has."""
    builder = Builder(8, 9, 40)
    builder.signs()
    builder.add("LceDequantize", [builder.last], (1, 8, 9, 40), "bool")
    builder.signs()
    builder.binary(64, stride=2, bits=True)
    pooled = {"filter_height": 2, "filter_width": 2, "stride_height": 2, "stride_width": 2, "padding": 1}
    builder.add("LceBMaxPool2d", [builder.last], (1, 2, 2, 2), "int32", **pooled)
    builder.binary(7)
    file = builder.file()
    (tmp_path / "graph.h").write_text(graph_header(file))
    options = ["-std=c++11", "-O1", "-Wall", "-Wextra", f"-I{KERNELS}", f"-I{KERNELS / 'tflm'}", f"-I{tmp_path}"]
    options += [f"-I{LATER / 'registration'}"] if registration else []
    options += [f"-I{LATER}", "-isystem", DOWNLOADS / "flatbuffers/include", "-fsanitize=address,undefined"]
    subprocess.run(["gcc", "-std=c99", "-O1", "-c", KERNELS / "kbnn_nn.c", "-o", tmp_path / "kbnn_nn.o"], check=True)
    sources = [LATER / "main.cc", KERNELS / "tflm" / "kbnn_tflm.cc", tmp_path / "kbnn_nn.o"]
    subprocess.run(["g++", *options, *sources, "-o", tmp_path / "run"], check=True)
    images = np.random.default_rng(0).integers(-128, 128, size=(3, 8, 9, 40)).astype(np.int8)
    done = subprocess.run([tmp_path / "run"], input=images.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-500:]
    expected = run(file, images)[builder.last.index]
    found = np.frombuffer(done.stdout, np.int8).reshape(expected.shape)
    assert len(np.unique(found)) > 10
    np.testing.assert_array_equal(found, expected)
