"""Figures over epochs: they include every weight and every scale of the middle layer."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from kbnn.analysis.over_epochs import MOST, over_epochs
from kbnn.analysis.weight_history import EDGES, WeightHistory


def record(epochs: int, **scales: np.ndarray) -> WeightHistory:
    histograms = np.ones((epochs, 3, len(EDGES) - 1), int)
    return WeightHistory(("a", "b", "c"), np.arange(epochs), histograms=histograms, scales=scales)


def test_without_scales_only_weights_are_drawn():
    pictures = over_epochs(record(3))
    assert list(pictures) == ["weights-over-epochs"]
    assert "latent weights of b (81) after each epoch" in pictures["weights-over-epochs"].caption


def test_scales_of_the_middle_layer_are_drawn_from_zero_to_the_largest():
    alphas = np.array([[0.1, 0.2], [0.3, 0.4]])
    pictures = over_epochs(record(2, b=alphas), "run")
    assert list(pictures) == ["weights-over-epochs-run", "scales-over-epochs-run"]
    figure = Figure()
    pictures["scales-over-epochs-run"].draw(figure)
    drawn = [np.concatenate([path.vertices for path in band.get_paths()]) for band in figure.axes[0].collections]
    assert len(drawn) == 2
    assert all(vertices[:, 0].min() < 0.01 for vertices in drawn)
    assert all(vertices[:, 0].max() == pytest.approx(0.42, abs=0.01) for vertices in drawn)


def test_many_epochs_are_thinned_out_but_keep_the_first_and_last():
    figure = Figure()
    over_epochs(record(400))["weights-over-epochs"].draw(figure)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert len(shown) == MOST
    assert (shown[0], shown[-1]) == ("0", "399")
