"""`kbnn predict`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from kbnn import tables
from kbnn.cli.artifacts import data_dir_option, dataset_option, load_dataset, model_argument
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError, UsageError
from kbnn.printable import printable

_STDIN = "-"


@dataclass(frozen=True)
class ClassProbability:
    """A class with its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class ImagePredictions:
    """The most probable classes of one image, best first."""

    image: str
    predictions: tuple[ClassProbability, ...]


@dataclass(frozen=True)
class Predictions:
    """The predictions for all images."""

    images: tuple[ImagePredictions, ...]

    def __str__(self) -> str:
        rows = [
            ("" if k else found.image, each.label, f"{each.probability:.1%}")
            for found in self.images
            for k, each in enumerate(found.predictions)
        ]
        return tables.render(("image", "class", ">probability"), rows)


@click.command(cls=Command)
@model_argument
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes to print.")
@dataset_option
@data_dir_option
@json_option
def command(
    model: Path, images: tuple[Path, ...], top: int, dataset: str | None, data_dir: Path | None, as_json: bool
) -> None:
    """Classify pictures with a run, a Keras model or a .tflite file.

    IMAGE is an image file, a folder of images, or - for an image from standard input. Files that kbnn converted contain
    labels, input size and normalization; for other models, give the data set that they were trained on.

    Exits with status 1 if a picture cannot be read; the others are still classified.

    \b
    Example:
      kbnn predict photos.tflite cat.jpg dog.jpg
      kbnn predict runs/bireal18-bireal-photos holiday/ --top 1 --json
      libcamera-jpeg -o - | kbnn predict photos.tflite -
    """
    given = list(_images(images))
    import_tensorflow()
    from kbnn.converters.classifier import Classifier
    from kbnn.datasets import pictures

    classifier = Classifier(model, data=load_dataset(model, dataset, data_dir) if dataset else None)
    found, failed = [], []
    for name, content in given:
        try:
            ranked = classifier(
                pictures.read_from(sys.stdin.buffer) if content is None else pictures.read(content), top
            )
        except UsageError:
            raise
        except KbnnError as error:
            failed.append(f"{name} ({error})")
            continue
        found.append(ImagePredictions(name, tuple(ClassProbability(each.label, each.probability) for each in ranked)))
    if found:
        show(Predictions(tuple(found)), as_json)
    if failed:
        raise KbnnError(f"{len(failed)} of {len(given)} images cannot be classified: {', '.join(failed[:3])}")


def _images(paths: tuple[Path, ...]) -> Iterator[tuple[str, Path | None]]:
    """The name and path of each image; the path of standard input is None."""
    for path in paths:
        if str(path) == _STDIN:
            yield _STDIN, None
        elif path.is_dir():
            yield from _of_folder(path)
        elif path.exists():
            yield str(path), path
        else:
            raise UsageError(f"no image at '{path}': check the path")


def _of_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    from kbnn.datasets import pictures, walk

    left_out = walk.LeftOut()
    paths = walk.files(folder, left_out)
    found = [path for path in paths if pictures.is_image_name(path.name)]
    if not found:
        raise UsageError(f"no images in '{folder}': give a folder with image files")
    if len(found) < len(paths):
        left_out.add("without an image's extension", len(paths) - len(found))
    if left_out.counts:
        click.echo(f"left out in '{printable(str(folder))}': {left_out}", err=True)
    for path in found:
        yield str(path), path
