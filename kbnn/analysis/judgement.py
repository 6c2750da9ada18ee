"""Evaluates a classifier on labelled images: accuracy, figures per class, confusion matrix and worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kbnn import tables
from kbnn.analysis import pictures
from kbnn.analysis.page import Page, Section, Table
from kbnn.datasets import Arrays, Dataset
from kbnn.intervals import wilson

_SHOWN = 24
_FIVE = 5
_DEFINITIONS = (
    "Recall: the share of a class's images that are classified correctly. Precision: the share of the predictions of a "
    "class that are correct."
)


@dataclass(frozen=True)
class ClassFigures:
    """Recall and precision of one class; each is None if its denominator is zero.

    `confused_with` is the class that most of its misclassified images were assigned to.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None
    confused_with: str


@dataclass(frozen=True)
class Mistake:
    """A misclassified test image (its index in the split), its class, the predicted class, and its probability."""

    image: int
    actual: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Judgement(tables.Shown):
    """The evaluation on test images: accuracies (0 to 1) with a 95 % interval, and the mean cross-entropy in nats.

    `top5` is None with five classes or fewer.
    """

    model: str
    dataset: str
    samples: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float | None
    loss: float
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...] = field(repr=False)
    mistakes: tuple[Mistake, ...] = field(repr=False)

    def __str__(self) -> str:
        head = (
            f"{self.dataset} test: top-1 {self.top1:.2%} ({self.top1_low:.1%} to {self.top1_high:.1%}){_top5(self)} "
            f"of {self.samples} images, loss {self.loss:.4f}"
        )
        return f"{head}\n\n{tables.render(_COLUMNS, _rows(self))}"


_COLUMNS = ("class", ">images", ">recall", ">precision", "mostly confused with")


def _rows(judgement: Judgement) -> list[tuple[str, int, str, str, str]]:
    return [
        (each.name, each.images, _percent(each.recall), _percent(each.precision), each.confused_with)
        for each in judgement.classes
    ]


def _top5(judgement: Judgement) -> str:
    return "" if judgement.top5 is None else f", top-5 {judgement.top5:.2%}"


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The number of images `(classes, classes)` by actual class (rows) and predicted class (columns)."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def judge(model: str, probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], dataset: str) -> Judgement:
    """Compares probabilities with labels.

    Args:
        model: name of the model.
        probabilities: the network's outputs `(N, classes)`.
        labels: true classes `(N,)`.
        classes: names of the classes.
        dataset: name of the data set.
    """
    count = len(classes)
    predicted = probabilities.argmax(-1)
    counts = confusion(labels, predicted, count)
    hits = int((predicted == labels).sum())
    low, high = wilson(hits, len(labels))
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :_FIVE]
    of_label = probabilities[np.arange(len(labels)), labels]
    of_prediction = probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-of_prediction[wrong], kind="stable")]
    return Judgement(
        model=model,
        dataset=dataset,
        samples=len(labels),
        top1=hits / len(labels),
        top1_low=low,
        top1_high=high,
        top5=float((best == labels[:, None]).any(-1).mean()) if count > _FIVE else None,
        loss=float(-np.log(np.maximum(of_label, 1e-12)).mean()),
        classes=tuple(_class_figures(k, name, counts, classes) for k, name in enumerate(classes)),
        confusion=tuple(tuple(int(value) for value in row) for row in counts),
        mistakes=tuple(
            Mistake(int(k), classes[labels[k]], classes[predicted[k]], float(of_prediction[k])) for k in worst
        ),
    )


def _class_figures(k: int, name: str, counts: np.ndarray, classes: Sequence[str]) -> ClassFigures:
    row = counts[k].copy()
    images, found, right = int(row.sum()), int(counts[:, k].sum()), int(row[k])
    row[k] = 0
    other = classes[int(row.argmax())] if row.any() else ""
    return ClassFigures(name, images, right / images if images else None, right / found if found else None, other)


def page(judgement: Judgement, data: Dataset) -> Page:
    """The judgement as a page, with the mistakes that the network made with the highest probability."""
    sections = [Section("Classes", [_DEFINITIONS], [Table(_COLUMNS, _rows(judgement))])]
    if len(judgement.classes) <= 30:
        caption = f"Predicted class by actual class, {judgement.samples} test images."
        drawn = pictures.confusion_matrix(np.array(judgement.confusion), data.classes, caption)
        sections.append(Section("Confusion", pictures=[drawn]))
    if judgement.mistakes:
        sections.append(_mistakes(judgement, data))
    return Page(
        f"kbnn evaluate: {Path(judgement.model).name}",
        f"Top-1 {judgement.top1:.2%} (95 % interval {judgement.top1_low:.1%} to {judgement.top1_high:.1%})"
        f"{_top5(judgement)} of {judgement.samples} test images of {judgement.dataset}.",
        sections,
    )


def _mistakes(judgement: Judgement, data: Dataset) -> Section:
    shown = judgement.mistakes[:_SHOWN]
    titles = [f"{each.actual}\n{each.predicted} {each.probability:.0%}?" for each in shown]
    caption = (
        f"The {len(shown)} of {len(judgement.mistakes)} mistakes with the highest probability: the actual class, and "
        f"below it the predicted class with its probability."
    )
    images = test_images(data, np.array([each.image for each in shown]))
    return Section("Worst mistakes", pictures=[pictures.gallery(images, titles, caption, columns=6)])


def test_images(data: Dataset, indices: np.ndarray) -> np.ndarray:
    """Test images after resizing and cropping, uint8 `(N, H, W, C)`, in the order of their indices."""
    order = np.argsort(indices)
    split = data.test.take(indices if isinstance(data.test, Arrays) else indices[order])
    inputs = data.inputs(split) * np.array(data.normalization.std) + np.array(data.normalization.mean)
    pixels = np.clip(np.rint(inputs), 0, 255).astype(np.uint8)
    return pixels if isinstance(data.test, Arrays) else pixels[np.argsort(order)]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
