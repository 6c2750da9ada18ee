"""`kbnn verify`."""

from pathlib import Path

import click

from kbnn.cli.artifacts import (
    check_classes,
    data_dir_option,
    dataset_option,
    load_dataset,
    load_model,
    model_argument,
)
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.cli.convert import test_images
from kbnn.errors import KbnnError


@click.command(cls=Command)
@model_argument
@click.argument("file", type=click.Path(path_type=Path))
@dataset_option
@data_dir_option
@click.option("--images", type=click.IntRange(min=1), default=256, show_default=True, help="How many test images.")
@json_option
def command(model: Path, file: Path, dataset: str | None, data_dir: Path | None, images: int, as_json: bool) -> None:
    """Compare a .tflite file with the Keras model it came from, bit by bit and layer by layer.

    If this version of kbnn made the file, it must be equal to a new conversion, byte for byte. Exits with status 1 if
    it is not, if a kernel bit or a layer differs, or if the outputs of the median image differ by more than rounding
    explains.

    \b
    Example:
      kbnn verify runs/resnet20-bireal-cifar10 resnet20.tflite
      kbnn verify model.keras model.tflite --dataset cifar10 --images 1000 --json
    """
    from kbnn.converters.tflite import flatbuffer

    flatbuffer.read(file)  # Reports a wrong path or a damaged file before TensorFlow and the data are loaded.
    import_tensorflow()
    from kbnn import converters

    loaded = load_model(model)
    data = load_dataset(model, dataset, data_dir)
    check_classes(model, data)
    inputs, labels = test_images(data, images)
    described = converters.Description.of(data)
    parity = converters.verify(loaded, file, inputs, labels=labels, description=described)
    show(parity, as_json)
    if not parity.passed:
        raise KbnnError(f"'{file}' does not compute the same as Keras: {'; '.join(parity.failures)}")
