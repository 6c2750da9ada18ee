"""Diagnostics of trained networks as pictures and a page, for `kbnn analyze`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbnn import files, structure, tables
from kbnn.analysis import figures
from kbnn.analysis.observation import Observation, observe
from kbnn.analysis.over_epochs import over_epochs
from kbnn.analysis.page import Page, Section, Table
from kbnn.analysis.pictures import Picture
from kbnn.analysis.report import Report, summarize
from kbnn.analysis.weight_history import WeightHistory

if TYPE_CHECKING:
    import tensorflow as tf

PAGE = "analysis.html"


@dataclass(frozen=True)
class Subject:
    """A network to study: its name and model, and if it comes from a run, the history of its training.

    `origin` (seed, epochs and data) is added to the caption of every picture. `accuracy` says how accurate the network
    is.
    """

    name: str
    model: "tf.keras.Model"
    origin: str = ""
    history: Sequence[Mapping[str, float]] = ()
    weights: WeightHistory | None = None
    accuracy: str = ""


@dataclass(frozen=True)
class Study(tables.Shown):
    """The results: one report per network, and the paths of the pictures and the page."""

    page: str
    pictures: tuple[str, ...]
    reports: dict[str, Report]
    accuracies: dict[str, str]

    def __str__(self) -> str:
        parts = [f"{name}\n{report}" if len(self.reports) > 1 else str(report) for name, report in self.reports.items()]
        parts = ["\n".join(f"{name}: {told}" for name, told in self.accuracies.items() if told), *parts]
        return "\n\n".join([*filter(None, parts), f"page: {self.page}, and {len(self.pictures)} pictures next to it"])


def study(subjects: Sequence[Subject], images: np.ndarray, folder: str | os.PathLike[str]) -> Study:
    """Observes networks on the same images and writes PNGs and a self-contained page.

    Args:
        subjects: one network, or several to compare; for real-valued networks, only the training is shown.
        images: network inputs `(N, H, W, C)`.
        folder: where to write `analysis.html` and a `NAME.png` for each picture.

    Raises:
        UsageError: no model has a binary layer.
        KbnnError: the folder cannot be written.
    """
    binary = [subject for subject in subjects if structure.binary_layers(subject.model)] or subjects
    networks = {subject.name: observe(subject.model, images) for subject in binary}
    reports = {name: summarize(name, len(images), layers) for name, layers in networks.items()}
    # Binary networks first, so that each has one colour in all pictures.
    ordered = sorted(subjects, key=lambda subject: subject.name not in networks)
    sections = [*_sections(binary, networks, reports), *_training(ordered)]
    title = "Analysis of " + ", ".join(subject.name for subject in subjects)
    written = []
    for name, drawn in ((name, drawn) for section in sections for name, drawn in section.pictures.items()):
        # Names of networks may be paths.
        path = Path(folder) / f"{files.component(name)}.png"
        files.write(path, drawn.png)
        written.append(str(path))
    accuracies = {subject.name: subject.accuracy for subject in ordered}
    page = Page(title, _summary(reports, accuracies), [section.on_page() for section in sections])
    page.write(Path(folder) / PAGE)
    return Study(str(Path(folder) / PAGE), tuple(written), reports, accuracies)


@dataclass(frozen=True)
class _Part:
    title: str
    text: str
    pictures: dict[str, Picture]
    tables: tuple[Table, ...] = ()

    def on_page(self) -> Section:
        return Section(self.title, [self.text], self.tables, list(self.pictures.values()))


def _sections(
    subjects: Sequence[Subject], networks: dict[str, list[Observation]], reports: dict[str, Report]
) -> list[_Part]:
    drawn = _with_origins(figures.of_networks(networks, reports), subjects)
    tables = tuple(_table(name, report) for name, report in reports.items())
    return [
        _Part(
            "Entropy",
            "A binary layer carries most information if +1 and -1 are equally frequent: 1 bit per value.",
            {name: drawn.pop(name) for name in ("shares", "entropy")},
            tables,
        ),
        _Part(
            "Quantization error",
            "The error of representing all activations of a layer by two levels, relative to their mean square.",
            {"quantization-error": drawn.pop("quantization-error")},
        ),
        _Part(
            "Latent weights",
            "The real-valued weights behind the signs, and the share of ones in SiMaN's optimal {0, 1} code.",
            drawn,
        ),
    ]


def _training(subjects: Sequence[Subject]) -> Iterator[_Part]:
    histories = {subject.name: subject.history for subject in subjects if subject.history}
    pictures: dict[str, Picture] = {}
    if histories:
        caption = "Accuracy on held-out images after each epoch, and training loss (nats) during the epoch."
        pictures["curves"] = figures.training_curves(histories, caption)
    recorded = {subject.name: subject.weights for subject in subjects if subject.weights}
    if recorded:
        ratios = {name: (weights.epochs, weights.mean_flips) for name, weights in recorded.items()}
        caption = "Share of all binary weights that changed sign within each epoch."
        pictures["flips"] = figures.flip_ratios(ratios, caption)
    for name, weights in recorded.items():
        pictures |= over_epochs(weights, name if len(subjects) > 1 else "")
    if pictures:
        yield _Part("Training", "Accuracy, loss and weights over the epochs.", _with_origins(pictures, subjects))


def _with_origins(pictures: Mapping[str, Picture], subjects: Sequence[Subject]) -> dict[str, Picture]:
    """The pictures, with the origin of the runs added to their captions."""
    known = {subject.name: subject.origin for subject in subjects if subject.origin}
    alike = len(known) == len(subjects) and len(set(known.values())) == 1
    origins = [subjects[0].origin] if alike else [f"{name}: {origin}" for name, origin in known.items()]
    text = f" Runs: {'; '.join(origins)}." if origins else ""
    return {name: replace(drawn, caption=drawn.caption + text) for name, drawn in pictures.items()}


def _table(name: str, report: Report) -> Table:
    columns, rows = report.cells()
    caption = (
        f"{name}: share of +1 and entropy in bits of weights and of binary inputs; relative quantization error of the "
        f"inputs with the network's threshold, the plain sign and a batch median, each with optimal levels, then with "
        f"the plain sign and a batch median with ML+BMA's own levels; share of ones in the optimal code"
    )
    return Table(columns, rows, caption)


def _summary(reports: dict[str, Report], accuracies: Mapping[str, str]) -> str:
    told = "".join(f"{name}: {text}. " for name, text in accuracies.items() if text)
    samples = next(iter(reports.values())).samples
    figures_ = "; ".join(
        f"{name}: entropy of weights {report.weight_entropy:.4f}, of activations {report.activation_entropy:.4f}, "
        f"mean quantization error {report.quantization_error:.3f}"
        for name, report in reports.items()
    )
    return f"{told}{figures_}. {samples} held-out images."
