"""The demo's report: what was trained, what the file is, whether it is right, how long it takes."""

from pathlib import Path
from typing import Any

import numpy as np

from kbnn import tables
from kbnn.analysis import pictures
from kbnn.analysis.page import Page, Section, Table

_SHOWN = 16


def page(demo: Any, run: Any, data: Any, predictions: np.ndarray) -> Page:
    """The page of a finished demo; `predictions` are the .tflite file's classes of the test images."""
    return Page(
        title="kbnn demo: a binary network on handwritten digits",
        summary=(
            f"Top-1 {demo.top1:.2%} of {demo.test_images} held-out images; "
            f"{len(demo.audit.binary_convolutions)} of {len(demo.audit.binary_convolutions)} 1-bit convolutions "
            f"bitpacked; file of {tables.size(demo.audit.size_bytes)}."
        ),
        sections=(
            _training(demo, run, data),
            _file(demo),
            _parity(demo, data),
            _latency(demo),
            _mistakes(data, predictions),
        ),
    )


def _training(demo: Any, run: Any, data: Any) -> Section:
    recipe = run.recipe
    caption = (
        f"Top-1 accuracy after each epoch, {data.train.size} training and {data.validation.size} validation images, "
        f"seed {recipe.seed}. Training images are augmented."
    )
    return Section(
        "Training",
        [
            f"Network {recipe.model.name}, method {recipe.model.method}, {recipe.epochs} epochs in "
            f"{demo.training_seconds:.1f} s. Weights and activations of the binary layers are +1 or -1; the first "
            "convolution, the shortcuts that change shape and the classifier stay real-valued."
        ],
        pictures=[pictures.training_curve(run.history(), caption)],
    )
