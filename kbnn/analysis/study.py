"""Diagnostics of trained networks as pictures and one page, for `kbnn analyze`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbnn import files, structure, tables
from kbnn.analysis import figures
from kbnn.analysis.observation import Observation, observe
from kbnn.analysis.over_epochs import over_epochs
from kbnn.analysis.page import Page, Section, Table
from kbnn.analysis.pictures import Picture
from kbnn.analysis.report import Report, summarise
from kbnn.analysis.weight_history import WeightHistory

PAGE = "analysis.html"


@dataclass(frozen=True)
class Subject:
    """One network under study: its name, its model, and from its run, if it has one, how training went.

    `origin` goes under every picture: seed, epochs and data.
    """

    name: str
    model: Any
    origin: str = ""
    history: Sequence[Mapping[str, float]] = ()
    weights: WeightHistory | None = None


@dataclass(frozen=True)
class Study(tables.Shown):
    """What was found: one report per network, and where pictures and page were written."""

    page: str
    pictures: tuple[str, ...]
    reports: dict[str, Report]

    def __str__(self) -> str:
        parts = [f"{name}\n{report}" if len(self.reports) > 1 else str(report) for name, report in self.reports.items()]
        return "\n\n".join([*parts, f"page: {self.page}, and {len(self.pictures)} pictures next to it"])


def study(subjects: Sequence[Subject], images: Any, folder: str | os.PathLike[str]) -> Study:
    """Observes networks on the same images and writes PNGs and a self-contained page.

    Args:
        subjects: one network, or several to lay over each other; of real-valued ones only the training is shown.
        images: network inputs `(N, H, W, C)`.
        folder: receives `analysis.html` and `NAME.png` for each picture.

    Raises:
        UsageError: no model has a binary layer.
        KbnnError: the folder cannot be written.
    """
    binary = [subject for subject in subjects if structure.binary_layers(subject.model)] or subjects
    networks = {subject.name: observe(subject.model, images) for subject in binary}
    reports = {name: summarise(name, len(images), layers) for name, layers in networks.items()}
    # Binary networks first, so that each has one colour in all pictures.
    ordered = sorted(subjects, key=lambda subject: subject.name not in networks)
    sections = [*_sections(binary, networks, reports), *_training(ordered)]
    title = "Analysis of " + ", ".join(subject.name for subject in subjects)
    written = []
    for name, drawn in ((name, drawn) for section in sections for name, drawn in section.pictures.items()):
        path = Path(folder) / f"{name}.png"
        files.write(path, drawn.png)
        written.append(str(path))
    page = Page(title, _summary(reports), [section.on_page() for section in sections])
    page.write(Path(folder) / PAGE)
    return Study(str(Path(folder) / PAGE), tuple(written), reports)


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
            "A binary layer can say most when +1 and -1 are equally frequent: 1 bit per weight and per activation.",
            {name: drawn.pop(name) for name in ("shares", "entropy")},
            tables,
        ),
        _Part(
            "What binarization loses",
            "Two levels stand for all activations of a layer. The error is the share of their power that is missed.",
            {"quantization-error": drawn.pop("quantization-error")},
        ),
        _Part(
            "Latent weights",
            "The real-valued weights behind the signs, and the share that SiMaN's optimal {0, 1} code would mark.",
            drawn,
        ),
    ]


def _training(subjects: Sequence[Subject]) -> Iterator[_Part]:
    histories = {subject.name: subject.history for subject in subjects if subject.history}
    pictures: dict[str, Picture] = {}
    if histories:
        caption = "Accuracy on held-out images after each epoch, and training loss (nats) in it."
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
    """Pictures whose captions also say which runs they are of."""
    known = {subject.name: subject.origin for subject in subjects if subject.origin}
    alike = len(known) == len(subjects) and len(set(known.values())) == 1
    origins = [subjects[0].origin] if alike else [f"{name}: {origin}" for name, origin in known.items()]
    text = f" Runs: {'; '.join(origins)}." if origins else ""
    return {name: replace(drawn, caption=drawn.caption + text) for name, drawn in pictures.items()}


def _table(name: str, report: Report) -> Table:
    columns, rows = report.cells()
    caption = (
        f"{name}: share of +1 and entropy in bits of weights and of binary inputs; the inputs' relative quantization "
        f"error with the network's threshold, the plain sign's and a batch median's, each with its best levels, then "
        f"the sign's and the median's with the levels that ML+BMA gives them; share of +1 in the optimal code"
    )
    return Table(columns, rows, caption)


def _summary(reports: dict[str, Report]) -> str:
    samples = next(iter(reports.values())).samples
    figures_ = "; ".join(
        f"{name}: entropy of weights {report.weight_entropy:.4f}, of activations {report.activation_entropy:.4f}, "
        f"mean quantization error {report.quantization_error:.3f}"
        for name, report in reports.items()
    )
    return f"{figures_}. {samples} held-out images."
