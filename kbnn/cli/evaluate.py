"""`kbnn evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn import files
from kbnn.cli.artifacts import (
    OutputFile,
    artifact_name,
    check_classes,
    data_dir_option,
    dataset_option,
    load_dataset,
    load_model,
    model_argument,
    output_folder,
    recipe_name,
)
from kbnn.cli.command import Command, import_tensorflow, json_option, show

if TYPE_CHECKING:
    from kbnn.converters import Deployments
    from kbnn.datasets import Dataset


@click.command(cls=Command)
@model_argument
@dataset_option
@data_dir_option
@click.option("--html", type=OutputFile("an HTML page"), help="Write a page with the worst mistakes as pictures.")
@click.option("--forms", is_flag=True, help="Convert a run or a Keras model in every form, and compare them.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="With --forms: new folder to keep the files in.")
@json_option
def command(
    model: Path,
    dataset: str | None,
    data_dir: Path | None,
    html: Path | None,
    forms: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Accuracy of a run, a Keras model or a .tflite file on the held-out test set.

    Prints top-1 and, with more than five classes, top-5 accuracy, and the figures of each class; --json adds the
    confusion matrix and the mistakes. With --forms, prints top-1, agreement with Keras and size of the network in Keras
    and in every form of file.

    \b
    Example:
      kbnn evaluate runs/resnet20-bireal-cifar10
      kbnn evaluate runs/resnet20-bireal-cifar10 --forms
      kbnn evaluate resnet20.tflite --data cifar10 --html resnet20.html
      kbnn evaluate model.keras --data photos/ --json
    """
    import_tensorflow()
    from kbnn.analysis.judgement import judge, page
    from kbnn.converters.classifier import Classifier
    from kbnn.errors import UsageError

    if output is not None and not forms:
        raise UsageError("--output keeps the files of --forms: give both, or neither")
    if forms and (html is not None or files.suffix(model) == ".tflite"):
        raise UsageError(f"--forms converts one run or Keras model, without --html: received '{model}'")
    data = load_dataset(model, dataset, data_dir)
    if forms:
        show(_forms(model, data, output), as_json)
        return
    classifier = Classifier(model, data=data)
    data.check_fits(classifier.input_shape, len(classifier.labels))
    probabilities = classifier.probabilities(data.inputs(data.test))
    judgement = judge(str(model), probabilities, data.test.labels, data.classes, data.name)
    show(judgement, as_json)
    if html is not None:
        page(judgement, data).write(html)


def _forms(path: Path, data: "Dataset", output: Path | None) -> "Deployments":
    """The network in every form, whose files stay in `output` if that is given."""
    from kbnn.converters import Description, deployments

    check_classes(path, data)
    description = Description.of(data, recipe_name(path), artifact_name(path))
    if output is not None:
        return deployments(load_model(path), data, output_folder(output, output), description)
    with files.scratch() as folder:
        return deployments(load_model(path), data, folder, description)
