"""Evaluates a classifier on labelled images: accuracy, figures per class, confusion matrix and worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kbnn import tables
from kbnn.analysis import pictures
from kbnn.analysis.page import Page, Section, Table
from kbnn.datasets import Arrays, Dataset

# 97.5th percentile of the normal distribution, for 95 % intervals.
_Z = 1.959964
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
        rows = [
            (each.name, each.images, _percent(each.recall), _percent(each.precision), each.confused_with)
            for each in self.classes
        ]
        head = (
            f"{self.dataset} test: top-1 {self.top1:.2%} ({self.top1_low:.1%} to {self.top1_high:.1%}){_top5(self)} "
            f"of {self.samples} images, loss {self.loss:.4f}"
        )
        return f"{head}\n\n{tables.render(('class', '>images', '>recall', '>precision', 'mostly confused with'), rows)}"


def _top5(judgement: Judgement) -> str:
    return "" if judgement.top5 is None else f", top-5 {judgement.top5:.2%}"


def judge(model: str, shares: np.ndarray, labels: np.ndarray, classes: Sequence[str], dataset: str) -> Judgement:
    """Compares probabilities with labels.

    Args:
        model: name of the model.
        shares: probabilities `(N, classes)`.
        labels: true classes `(N,)`.
        classes: names of the classes.
        dataset: name of the data set.
    """
    count = len(classes)
    predicted = shares.argmax(-1)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, predicted), 1)
    hits = int((predicted == labels).sum())
    low, high = wilson(hits, len(labels))
    best = np.argsort(-shares, axis=-1, kind="stable")[:, :_FIVE]
    chosen = shares[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-shares[wrong, predicted[wrong]], kind="stable")]
    return Judgement(
        model=model,
        dataset=dataset,
        samples=len(labels),
        top1=hits / len(labels),
        top1_low=low,
        top1_high=high,
        top5=float((best == labels[:, None]).any(-1).mean()) if count > _FIVE else None,
        loss=float(-np.log(np.maximum(chosen, 1e-12)).mean()),
        classes=tuple(_class_figures(k, name, confusion, classes) for k, name in enumerate(classes)),
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        mistakes=tuple(
            Mistake(int(k), classes[labels[k]], classes[predicted[k]], float(shares[k, predicted[k]])) for k in worst
        ),
    )


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927)."""
    share, spread = hits / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (float(middle - half) if hits else 0.0), (float(middle + half) if hits < count else 1.0)


def _class_figures(k: int, name: str, confusion: np.ndarray, classes: Sequence[str]) -> ClassFigures:
    row = confusion[k].copy()
    images, found, right = int(row.sum()), int(confusion[:, k].sum()), int(row[k])
    row[k] = 0
    other = classes[int(row.argmax())] if row.any() else ""
    return ClassFigures(name, images, right / images if images else None, right / found if found else None, other)


def page(judgement: Judgement, data: Dataset) -> Page:
    """The judgement as a page, with the mistakes that the network made with the highest probability."""
    labels, predicted = _pairs(judgement)
    rows = [
        (each.name, each.images, _percent(each.recall), _percent(each.precision), each.confused_with)
        for each in judgement.classes
    ]
    sections = [
        Section(
            "Classes",
            [_DEFINITIONS],
            [Table(("class", ">images", ">recall", ">precision", "mostly confused with"), rows)],
        )
    ]
    if len(judgement.classes) <= 30:
        caption = f"Predicted class by actual class, {judgement.samples} test images."
        drawn = pictures.confusion_matrix(labels, predicted, data.classes, caption)
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


def _pairs(judgement: Judgement) -> tuple[np.ndarray, np.ndarray]:
    """Actual and predicted class of each image, in the order of the confusion matrix."""
    pairs = [
        (actual, predicted)
        for actual, row in enumerate(judgement.confusion)
        for predicted, count in enumerate(row)
        for _ in range(count)
    ]
    actual, predicted = np.array(pairs).T
    return actual, predicted


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
