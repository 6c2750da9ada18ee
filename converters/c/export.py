"""A network as a folder of C code for microcontrollers."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import kbnn
from kbnn import files, tables
from kbnn.converters.c import integer
from kbnn.converters.c.plan import Plan, Tensor, check_fits, plan
from kbnn.converters.c.source import Program, float_literal, program, wrapped
from kbnn.converters.c.writers import Network, write
from kbnn.converters.errors import ConversionError
from kbnn.converters.tflite import audit, flatbuffer, interpreter, metadata
from kbnn.converters.tflite.flatbuffer import File
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.converters.verify.verification import Images

KERNELS = ("kbnn_nn.h", "kbnn_nn.c")
# The placeholder in kernels that `export_c` replaces by their fingerprint.
_UNEXPORTED = "kernels_unexported"
# LCE's operators for TensorFlow Lite Micro, built on the same kernels.
TFLM = ("kbnn_tflm.h", "kbnn_tflm.cc")
_HERE = Path(__file__).parent
_TEST_IMAGES = 4
# How pixels commonly become network input, as mean and standard deviation.
_CONVENTIONS = {"pixel": (0.0, 1.0), "pixel / 255": (0.0, 255.0), "pixel / 127.5 - 1": (127.5, 127.5)}
# The kernels that compute in single precision.
_IN_FLOAT = ("kbnn_normalize", "kbnn_softmax")
_CHECK_SECONDS = 600
_MADE_BY = "KBNN"
# Files for build systems and readers, and their templates.
_PACKAGING = {
    "CMakeLists.txt": "CMakeLists.txt.j2",
    "README.md": "README.md.j2",
    "idf_component.yml": "idf_component.yml.j2",
    "library.json": "library.json.j2",
    "library.properties": "library.properties.j2",
    "zephyr/module.yml": "module.yml.j2",
}
# Names that would collide, in capital letters too, because some file systems do not tell them apart.
_KEYWORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const const_cast
    constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false float
    for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private
    protected public register reinterpret_cast restrict return short signed sizeof static static_assert static_cast
    struct switch template this thread_local throw true try typedef typeid typename union unsigned using virtual
    void volatile wchar_t while xor xor_eq
"""
# A file of the same name would hide them.
_HEADERS = """
    arduino assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
    stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar unistd wchar wctype
"""
# Of CMake, ESP-IDF and Zephyr, and our own.
_TARGETS = """
    all all_build app clean edit_cache help install kbnn kbnn_nn kbnn_tflm main package package_source preinstall
    run_tests test zephyr zero_check
"""
_RESERVED = frozenset(" ".join([_KEYWORDS, _HEADERS, _TARGETS]).split())


@dataclass(frozen=True)
class CExport(tables.Shown):
    """What `export_c` wrote. `constant_bytes` are the weights and tables in flash, without code.

    A network with one score has two classes if the score decides between them.
    """

    folder: str
    name: str
    constant_bytes: int
    arena_bytes: int
    binary_macs: int
    real_macs: int
    classes: int
    input_shape: tuple[int, int, int]
    test_images: int

    def __str__(self) -> str:
        height, width, channels = self.input_shape
        return (
            f"{self.folder}: {self.name}.c and kbnn_nn.c, input {height}x{width}x{channels}, {self.classes} classes; "
            f"{self.constant_bytes} bytes of weights and tables (without code), {self.arena_bytes} bytes of arena, "
            f"{self.binary_macs:,} binary and {self.real_macs:,} int8 MACs; "
            f"self-test with {self.test_images} images"
        )


@dataclass(frozen=True)
class Check(tables.Shown):
    """The result of the self-test on this machine; `unchecked` lists what it does not cover."""

    compiler: str
    output: str
    passed: bool
    unchecked: str = "other compilers and cores, your board, the stack that it needs there, and any timing"

    def __str__(self) -> str:
        verdict = "PASS" if self.passed else "FAIL"
        return f"self-test with {self.compiler}: {verdict} ({self.output}); not checked: {self.unchecked}"


def export_c(
    model_or_path: "tf.keras.Model | str | os.PathLike[str]",
    folder: str | os.PathLike[str],
    name: str | None = None,
    calibration: "Images | None" = None,
    *,
    description: "metadata.Description | None" = None,
    max_ram: int | None = None,
    tflm: bool = False,
    fallback_name: str = "",
) -> CExport:
    """Writes a network as C99 for microcontrollers, with a self-test, and files for common build systems.

    The C code computes exactly what the int8 .tflite file computes in LCE's interpreter (reference kernel).

    Args:
        model_or_path: a Keras model, a run's folder, a `.keras` file, or an int8 `.tflite` file made by `convert`.
        folder: where to write; it must not exist, be empty, or hold an earlier export of the same name.
        name: the prefix of all names, a C identifier; by default the model's name.
        calibration: network input like the images that the network will see. A model needs it to become int8; the
            first images are those of the self-test. A `.tflite` file without it is tested on random images.
        description: labels and normalization; a `.tflite` file contains its own.
        max_ram: refuse a network whose arena is larger, in bytes.
        tflm: write LCE's operators for TensorFlow Lite Micro as well, `kbnn_tflm.h` and `kbnn_tflm.cc`: with them its
            MicroInterpreter runs any LCE file.
        fallback_name: the name of a network that has none, converted to an identifier.

    Raises:
        UsageError: a name that is not a C identifier, a folder with other files, or a model without calibration.
        ConversionError: something in the network has no form in C, or the arena is larger than `max_ram`.
        KbnnError: the file is damaged, or the folder cannot be written.

    Example:
        >>> kbnn.converters.export_c(model, "firmware", name="net", calibration=images)
    """
    target = Path(folder)
    given = _checked_name(name) if name is not None else None
    file = _file(model_or_path, calibration, description)
    stem = Path(model_or_path).stem if isinstance(model_or_path, str | os.PathLike) else ""
    chosen = given or default_name(file, fallback_name or stem)
    _check_folder(target, chosen)
    network = write(file)
    _check_scores(network)
    planned = plan(network.steps)
    check_fits(planned, max_ram, chosen)
    exported, texts = _texts(file, network, planned, chosen, calibration, target, tflm)
    if tflm:
        texts |= {name: (_HERE / "tflm" / name).read_text(encoding="utf-8") for name in TFLM}
    _write_folder(target, texts)
    return exported


def check(folder: str | os.PathLike[str], name: str) -> Check:
    """Compiles an export with this machine's compiler and runs its self-test.

    Raises:
        KbnnError: there is no compiler, or it cannot compile the code.
    """
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if compiler is None:
        raise KbnnError("cannot check the C code: no C compiler (cc, gcc, clang) was found; install one")
    with files.scratch() as build:
        program = build / "test"
        sources = [os.fspath(Path(folder).resolve() / file) for file in (f"{name}.c", "kbnn_nn.c", f"{name}_test.c")]
        command = [compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-o", os.fspath(program), *sources]
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            raise KbnnError(f"{compiler} cannot compile the C code: {' '.join(compiled.stderr.split())[:400]}")
        try:
            ran = subprocess.run([os.fspath(program)], capture_output=True, text=True, timeout=_CHECK_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise KbnnError(
                f"the self-test in '{folder}' did not finish within {_CHECK_SECONDS} s: run {name}_test.c yourself"
            ) from error
    lines = ran.stdout.split("\n")
    return Check(Path(compiler).name, lines[0], ran.returncode == 0 and "PASS" in lines)


def default_name(file: File, fallback: str) -> str:
    """The model's name, or else the fallback, as a C identifier."""
    candidate = str(described(file).get("model") or fallback or "network")
    word = re.sub(r"\W+", "_", candidate, flags=re.ASCII).strip("_").lower()
    is_free = re.fullmatch(r"[a-z]\w*", word, re.ASCII) and word not in _RESERVED
    return word if is_free else f"net_{word}".rstrip("_")


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name.lower() in _RESERVED:
        raise UsageError(
            f"the name must be a C identifier: received '{name}'; use a letter followed by letters, digits and _, but "
            f"no keyword of C or C++, header of the C library or target of CMake"
        )
    return name


def described(file: File) -> dict[str, object]:
    """What kbnn stored in a file: labels, normalization and more; empty for a file that kbnn did not make."""
    try:
        found = json.loads(file.metadata.get(_MADE_BY, b"{}"))
    except (ValueError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _file(
    source: "tf.keras.Model | str | os.PathLike[str]",
    calibration: "Images | None",
    description: "metadata.Description | None",
) -> File:
    """The given int8 file, or one that is converted from a model."""
    if isinstance(source, str | os.PathLike) and files.suffix(source) == ".tflite":
        file = flatbuffer.read(source)
        _check_sound(file, os.fspath(source))
        return file
    if calibration is None:
        raise UsageError("C code needs an int8 network: received no images to calibrate it, give calibration=images")
    from kbnn import structure
    from kbnn.converters.conversion import convert

    model = _model(source) if isinstance(source, str | os.PathLike) else source
    structure.check_single(model)
    with files.scratch() as work:
        path = work / "model.tflite"
        convert(model, path, device="microcontroller", calibration=calibration, description=description)
        return flatbuffer.read(path)


def _model(source: str | os.PathLike[str]) -> "tf.keras.Model":
    from kbnn.training.run import Run, load_model

    return Run.open(Path(source)).model() if Path(source).is_dir() else load_model(source)


def _check_sound(file: File, path: str) -> None:
    """Refuses what `inspect` refuses, and files in which nothing is binary."""
    found = audit.audit(file, path)
    if found.silent_fallbacks:
        raise ConversionError(
            f"'{path}' has {len(found.silent_fallbacks)} layers that look 1-bit but are float: "
            f"{'; '.join(found.silent_fallbacks)}; convert the model again"
        )
    if not found.binary_convolutions:
        raise ConversionError(f"'{path}' contains no binary convolution: export an int8 file made by kbnn convert")


def _check_scores(network: Network) -> None:
    """Refuses a feature map as output: the C code returns one score per class, or one for two classes."""
    output = network.output
    if (output.height, output.width) != (1, 1):
        raise ConversionError(
            f"C code returns one score per class: the network's output '{output.name}' is {output.height}x"
            f"{output.width}x{output.channels}, end the network with global pooling or a dense layer"
        )


def _check_folder(folder: Path, name: str) -> None:
    """Refuses a folder whose content would be lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"the output must be a folder: received the file '{folder}', choose another path")
    ours = {*_names(name), "zephyr"}
    others = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if str(path.relative_to(folder)) not in ours
    )
    if others:
        raise UsageError(f"'{folder}' contains other files, such as '{others[0]}': choose a new or empty folder")


def _names(name: str) -> list[str]:
    return [f"{name}.h", f"{name}.c", f"{name}_test.c", *KERNELS, *TFLM, *_PACKAGING]


def _write_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes all files or none.

    The working directory and mount points cannot be replaced, or should not be: they get the files one by one.
    """
    target = folder.resolve()
    if target == Path.cwd() or target.is_mount():
        _write_files(target, texts)
        return
    with files.replacing(target) as made:
        for name, text in texts.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes files into a folder; if that fails, the earlier ones are restored."""
    earlier = {name: (folder / name).read_bytes() for name in texts if (folder / name).exists()}
    try:
        for name, text in texts.items():
            files.write(folder / name, text)
    except BaseException:
        for name in texts:
            if name in earlier:
                files.write(folder / name, earlier[name])
            else:
                (folder / name).unlink(missing_ok=True)
        raise
    for name in set(TFLM) - set(texts):
        (folder / name).unlink(missing_ok=True)


def _texts(
    file: File, network: Network, planned: Plan, name: str, calibration: "Images | None", folder: Path, tflm: bool
) -> tuple[CExport, dict[str, str]]:
    """The figures that describe the export, and the content of each file."""
    import jinja2

    made = program(network, planned)
    images, scores, kind = _vectors(file, network, calibration)
    exported = CExport(
        folder=os.fspath(folder),
        name=name,
        constant_bytes=made.size,
        arena_bytes=planned.arena_bytes,
        binary_macs=sum(step.binary_macs for step in network.steps),
        real_macs=sum(step.real_macs for step in network.steps),
        classes=len(_class_names(file, network.output)),
        input_shape=network.input.shape,
        test_images=len(images),
    )
    fingerprint, kernels = _kernels()
    values = {**asdict(exported), **_values(file, network, made, name), "kind": kind, "tflm": tflm}
    values["fingerprint"] = fingerprint
    values["images"] = [wrapped([str(v) for v in image.ravel().tolist()]) for image in images]
    values["expected"] = [wrapped([str(v) for v in row.ravel().tolist()]) for row in scores]
    loader = jinja2.FileSystemLoader(_HERE / "templates")
    environment = jinja2.Environment(  # noqa: S701, it makes C
        loader=loader,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    templates = {
        f"{name}.h": "network.h.j2",
        f"{name}.c": "network.c.j2",
        f"{name}_test.c": "test.c.j2",
        **_PACKAGING,
    }
    texts = {path: environment.get_template(template).render(values) for path, template in templates.items()}
    return exported, {**texts, **kernels}


def _kernels() -> tuple[str, dict[str, str]]:
    """The fingerprint of the kernels, and their files with the fingerprint in the names that networks link to."""
    texts = {name: (_HERE / name).read_text(encoding="utf-8") for name in KERNELS}
    fingerprint = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
    return fingerprint, {name: text.replace(_UNEXPORTED, f"kernels_{fingerprint}") for name, text in texts.items()}


def _values(file: File, network: Network, made: Program, name: str) -> dict[str, object]:
    """The values of the templates other than the figures."""
    about = described(file)
    image, output = network.input, network.output
    mean, std = (_numbers(about.get(key), image.channels) for key in ("mean", "std"))
    if std is None or not np.all(std > 0):
        mean = std = None
    recipe, data = about.get("recipe"), about.get("dataset")
    title = " ".join(
        [str(about.get("model") or name), *([f"by {recipe}"] if recipe else []), *([f"on {data}"] if data else [])]
    )
    return {
        "NAME": name.upper(),
        "title": _comment(title),
        "version": kbnn.__version__,
        "package_version": re.match(r"\d+\.\d+\.\d+|", kbnn.__version__ + ".0").group() or "0.0.0",  # type: ignore[union-attr]
        "height": image.height,
        "width": image.width,
        "channels": image.channels,
        "input_scale": float_literal(image.scale),
        "input_zero_point": image.zero_point,
        "output_scale": float_literal(output.scale),
        "output_zero_point": output.zero_point,
        "normalization": _normalization(image, mean, std),
        "pixel_tables": _pixel_tables(image, mean, std),
        "labels": [_string(label) for label in _class_names(file, output)],
        "scores": output.channels,
        "threshold": _threshold(file, output),
        "constants": made.constants,
        "rows": made.rows,
        "steps": made.steps,
        "passes": made.passes,
        "pass_count": made.pass_count,
        "uses_float": any(step.kernel in _IN_FLOAT for step in network.steps),
    }


def _class_names(file: File, output: Tensor) -> list[str]:
    """The labels of the classes. One score decides between two classes if there are two labels, or if it is a sigmoid.

    Any other single score is a number, and its only "class" its name.
    """
    given = described(file).get("labels")
    labels = [str(label) for label in (given if isinstance(given, list) and given else metadata.labels(file))]
    is_pair = output.channels == 1 and (len(labels) == 2 or _is_sigmoid(file) is True)
    classes = 2 if is_pair else output.channels
    return labels if len(labels) == classes else [f"class {k}" for k in range(classes)]


def _threshold(file: File, output: Tensor) -> int:
    """The largest int8 value of a single score that stands for the first of two classes."""
    is_probability = _is_sigmoid(file)
    if is_probability is None:
        lowest, highest = ((level - output.zero_point) * output.scale for level in (integer.LOW, integer.HIGH))
        is_probability = lowest >= 0 and highest < 1 + output.scale
    middle = 0.5 if is_probability else 0.0
    return min(integer.HIGH, output.zero_point + math.floor(middle / output.scale))


def _is_sigmoid(file: File) -> bool | None:
    (output,) = file.outputs.values()
    return file.is_sigmoid(output)


def _numbers(values: object, count: int) -> np.ndarray | None:
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        return None
    return found if found.shape == (count,) and np.all(np.isfinite(found)) else None


def _normalization(image: Tensor, mean: np.ndarray | None, std: np.ndarray | None) -> str:
    def listed(values: np.ndarray) -> str:
        return ", ".join(f"{float(value):g}" for value in values)

    if mean is None or std is None:
        return (
            f"{_convention(image)}, which fits the range of the network's input best: a guess, because the file has no "
            f"normalization (kbnn.converters.Description)"
        )
    return f"(pixel - mean) / std with mean {listed(mean)} and std {listed(std)} by channel"


def _convention(image: Tensor) -> str:
    """The convention of which pixels have most nearly the range of the network's input."""
    low, high = ((level - image.zero_point) * image.scale for level in (integer.LOW, integer.HIGH))

    def distance(name: str) -> float:
        mean, std = _CONVENTIONS[name]
        darkest, brightest = -mean / std, (255 - mean) / std
        return (abs(darkest - low) + abs(brightest - high)) / max(brightest - darkest, high - low)

    return min(_CONVENTIONS, key=distance)


def _pixel_tables(image: Tensor, mean: np.ndarray | None, std: np.ndarray | None) -> list[str]:
    """The int8 value of each pixel value: a table per channel, or one for all if they agree."""
    pixels = np.arange(256, dtype=np.float32)[:, None]
    if mean is None or std is None:
        mean, std = (np.full(image.channels, value, np.float32) for value in _CONVENTIONS[_convention(image)])
    levels = integer.to_int8((pixels - mean) / std, image.scale, image.zero_point)
    columns = [levels[:, 0]] if np.all(levels == levels[:, :1]) else list(levels.T)
    return [wrapped([str(value) for value in column.tolist()]).rstrip() for column in columns]


def _comment(text: str) -> str:
    """Text that is safe in a C comment, a YAML value and a property."""
    return re.sub(r"[^\w .,()+/-]", "_", text.replace("*/", "* /"))


def _string(text: str) -> str:
    """A C string literal in UTF-8; octal escapes end after three digits, hexadecimal ones would not."""
    octets = text.encode()
    return '"' + "".join(chr(o) if 32 <= o < 127 and chr(o) not in '"\\?' else f"\\{o:03o}" for o in octets) + '"'


def _vectors(file: File, network: Network, calibration: "Images | None") -> tuple[np.ndarray, np.ndarray, str]:
    """Images for the self-test in int8, the file's scores for them, and a description of the images."""
    (given,) = file.inputs.values()
    shape = tuple(given.shape[1:])
    if calibration is None:
        generator = np.random.default_rng(0)
        image = network.input
        low, high = ((limit - image.zero_point) * image.scale for limit in (integer.LOW, integer.HIGH))
        images, kind = generator.uniform(low, high, size=(_TEST_IMAGES, *shape)).astype(np.float32), "random images"
    else:
        images, kind = _images(calibration, shape)[:_TEST_IMAGES], "images of the calibration data"
    levels, scores = int8_values(file, network, images)
    return levels, scores, kind


def _images(calibration: "Images", shape: Sequence[int]) -> np.ndarray:
    if isinstance(calibration, Mapping):
        calibration = list(calibration.values())[:1]
    if not isinstance(calibration, np.ndarray) and isinstance(calibration, Sequence) and len(calibration) == 1:
        calibration = calibration[0]
    images = np.asarray(calibration, np.float32)
    if images.shape[1:] != tuple(shape) or not len(images):
        raise UsageError(f"the network takes images {tuple(shape)}: received calibration {images.shape}")
    return images


def int8_values(file: File, network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The network's input and scores in int8 for float images, by LCE's interpreter with its reference kernel."""
    model = flatbuffer.tree(file.data)
    indices = [network.input_index, network.output_index]
    (given,) = file.inputs.values()
    wanted = indices[1:] if network.input_index == given.index else indices
    model.subgraphs[0].outputs = np.array(wanted, np.int32)
    model.signatureDefs = []
    fed = images if given.dtype == "float32" else integer.to_int8(images, network.input.scale, network.input.zero_point)
    outputs = interpreter.run(flatbuffer.pack(model), [fed], kernel="reference")
    levels = outputs[0] if len(outputs) == 2 else fed
    return levels.astype(np.int8), outputs[-1].reshape(len(images), -1).astype(np.int8)
