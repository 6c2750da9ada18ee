"""The MODEL argument and the data options of the commands, and how they are loaded."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from kbnn import files
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.converters import Description
    from kbnn.datasets import Dataset, Normalization

_Decorated = TypeVar("_Decorated", bound=Callable[..., object])


def _trust(ctx: click.Context, _: click.Parameter, trust: bool) -> None:
    if trust:
        from kbnn import loading

        ctx.with_resource(loading.trusting())


trust_option = click.option(
    "--trust",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Load a model file even if it may run code. Only for files whose author you trust.",
)


def model_argument(command: _Decorated) -> _Decorated:
    """Adds the argument MODEL and the option `--trust`."""
    return click.argument("model", type=click.Path(path_type=Path))(trust_option(command))


dataset_option = click.option(
    "--dataset",
    "--data",
    "dataset",
    metavar="NAME|FOLDER",
    help="Data set by name, or folder of images with a sub-folder per class.  [default: a run's own]",
)

data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path), help="tensorflow-datasets' data folder.")


def load_model(path: Path) -> "tf.keras.Model":
    """The Keras model of a run, a model file or a SavedModel."""
    from kbnn import loading
    from kbnn.training import Run

    return Run.open(path).model() if _is_run(path) else loading.load_model(path)


def recipe_name(path: Path) -> str:
    """The name of a run's recipe; empty for other models."""
    from kbnn.training import Run

    return Run.open(path).recipe.name if _is_run(path) else ""


def artifact_name(path: Path) -> str:
    """The name of a run's folder, or of a file without its suffix."""
    return path.resolve().name if path.is_dir() else path.stem


class OutputFile(click.Path):
    """A file to write; an existing one is replaced only if it is empty or of the same kind.

    Whether it can be written is checked before the command starts its work, which may take long.

    Args:
        kind: a key of `_STARTS`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(path_type=Path)
        self._kind = kind

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        # Rows are appended to a CSV file in its place; other files are replaced.
        reason = "" if self._kind == _CSV and path.is_file() else files.unwritable(path)
        if reason:
            self.fail(f"cannot write '{path}': {reason}; choose another path", param, ctx)
        if path.is_file():
            with path.open("rb") as file:
                beginning = file.read(_BEGINNING)
            if beginning and not _STARTS[self._kind](beginning):
                self.fail(f"'{path}' exists and is not {self._kind}: choose another file to write", param, ctx)
        return path


_BEGINNING = 512
_CSV = "a CSV file"
_STARTS: dict[str, Callable[[bytes], bool]] = {
    "a .tflite file": lambda beginning: beginning[4:8] == b"TFL3",
    "an HTML page": lambda beginning: beginning.lstrip().lower().startswith((b"<!doctype html", b"<html")),
    "an SVG file": lambda beginning: b"<svg" in beginning,
    # Rows are appended; a file with other columns is refused later.
    _CSV: lambda beginning: b"\0" not in beginning,
}


def recorded(path: Path) -> "Description":
    """What a run or a .tflite file records about its labels and its input; empty for other models."""
    from kbnn.converters import Description
    from kbnn.converters.classifier import of_run
    from kbnn.converters.tflite import flatbuffer, metadata
    from kbnn.training import Run

    if _is_run(path):
        return of_run(Run.open(path))
    return metadata.describe(flatbuffer.read(path)) if files.suffix(path) == ".tflite" else Description()


def _normalization(path: Path, data_dir: Path | None) -> "Normalization | None":
    """The normalization of a network's input; None if neither the network nor its run's data set records it."""
    from kbnn.datasets import Normalization

    known = recorded(path)
    if known.mean:
        return Normalization(known.mean, known.std)
    if not _is_run(path):
        return None
    # Runs of version 0.1 record only where their images are.
    with contextlib.suppress(KbnnError):
        return load_dataset(path, None, data_dir).normalization
    return None


def _is_run(path: Path) -> bool:
    return path.is_dir() and not (path / "saved_model.pb").is_file()


def check_classes(path: Path, data: "Dataset") -> None:
    """Raises UsageError if the network is a run that was trained on other classes than those of a data set."""
    from kbnn.training import Run

    if _is_run(path):
        Run.open(path).check_classes(data)


def load_dataset(path: Path, name: str | None, data_dir: Path | None) -> "Dataset":
    """Loads a data set for a network, normalized as in its training, and images of a folder resized as in it, if known.

    Args:
        path: the network: a run, a Keras model or a `.tflite` file.
        name: name of a data set or a folder of images; None for the data set that the run was trained on.
        data_dir: tensorflow-datasets' folder.

    Raises:
        UsageError: there is no such network, the name is unknown, or none is given and the network is not a run.
    """
    if not path.exists():
        raise UsageError(f"no model at '{path}': give the folder of a run, a .keras file or a .tflite file")
    from kbnn import datasets
    from kbnn.training import Run

    if name:
        is_folder = name not in datasets.names() and Path(name).is_dir()
        given = _folder(path, name) if is_folder else datasets.load(name, data_dir=data_dir)
        known = _normalization(path, data_dir)
        if known is None or len(known.mean) not in (1, given.input_shape[2]):
            return given
        return dataclasses.replace(given, normalization=known)
    if _is_run(path):
        run = Run.open(path)
        if not run.has_source:
            raise UsageError(f"run '{path}' was trained on data that was passed in Python: give --data")
        return run.dataset(data_dir)
    raise UsageError(f"'{path}' does not record the data that it was trained on: give it with --data")


def _folder(path: Path, name: str) -> "Dataset":
    """A folder of images, resized and cropped as in the training of a network, or if unknown, in the usual way."""
    from kbnn import datasets

    side, known = _input_side(path), recorded(path)
    resize = known.resize if known.mean else round(side * 8 / 7)
    return datasets.load_folder(name, transform=datasets.Transform(resize=resize, square=known.square, size=side))


def _input_side(path: Path) -> int:
    """The height of a network's input.

    Raises:
        UsageError: the network does not take images of one known, square size.
    """
    shape: object
    if files.suffix(path) == ".tflite":
        from kbnn.converters.tflite import flatbuffer

        shapes = [tensor.shape for tensor in flatbuffer.read(path).inputs.values()]
        shape = shapes[0] if len(shapes) == 1 else shapes
    else:
        if _is_run(path):
            from kbnn.training import Run

            size = Run.open(path).recipe.data.size
            if size is not None:
                return size
        shape = load_model(path).input_shape
    if isinstance(shape, tuple) and len(shape) == 4 and isinstance(shape[1], int) and shape[1] == shape[2]:
        return shape[1]
    raise UsageError(
        f"a folder of images fits networks with one square input: received '{path}' with input shape {shape}"
    )


def output_folder(given: Path | None, default: Path) -> Path:
    """The folder to write to: the given one, which must be new or empty, or else an unused default.

    Raises:
        UsageError: the given folder exists and is not empty.
    """
    free = files.fresh_folder(given or default)
    if given is not None and free != given:
        raise UsageError(f"'{given}' is not an empty folder: nothing there was changed, choose another --output")
    return free
