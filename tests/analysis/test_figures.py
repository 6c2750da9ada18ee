"""Figures show the measured values, bars start at zero, and derivatives are those of the quantizers."""

import larq as lq
import numpy as np
import pytest
from matplotlib.figure import Figure

from kbnn import models
from kbnn.analysis import figures
from kbnn.analysis.observation import observe
from kbnn.analysis.pictures import Picture, confusion_matrix
from kbnn.analysis.report import summarize

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)


def drawn(picture: Picture) -> Figure:
    figure = Figure()
    picture.draw(figure)
    return figure


@pytest.fixture(scope="module")
def networks() -> dict[str, list]:
    return {name: observe(models.build("tiny", method=name), IMAGES) for name in ("bireal", "xnor")}


@pytest.mark.slow
def test_every_figure_of_two_networks_states_its_sample_size(networks: dict[str, list]):
    reports = {name: summarize(name, 4, layers) for name, layers in networks.items()}
    pictures = figures.of_networks(networks, reports)
    assert set(pictures) == {"shares", "entropy", "quantization-error", "optimal-code", "weights"}
    for picture in pictures.values():
        assert any(size in picture.caption for size in ("4 held-out images", "number of weights", "one dot per filter"))


def test_a_figure_has_a_light_a_dark_and_a_png_version():
    picture = figures.flip_ratios({"run": (np.arange(3), np.array([np.nan, 0.1, 0.05]))}, "")
    assert picture.png.startswith(b"\x89PNG")
    assert b"<svg" in picture.light
    assert b"<svg" in picture.dark
    assert picture.light != picture.dark


@pytest.mark.slow
def test_bars_start_at_zero_and_have_the_measured_heights(networks: dict[str, list]):
    reports = {name: summarize(name, 4, layers) for name, layers in networks.items()}
    for picture in (figures.quantization_errors(reports), figures.positive_shares(networks, 4)):
        for axes in drawn(picture).axes:
            assert axes.get_ylim()[0] == 0
    first = drawn(figures.quantization_errors(reports)).axes[0]
    heights = sorted(bar.get_height() for bar in first.patches)
    expected = [
        getattr(layer, f"quantization_error{kind}")
        for layer in reports["bireal"].layers
        for kind in ("", "_sign", "_median")
    ]
    np.testing.assert_allclose(heights, sorted(expected))


@pytest.mark.slow
def test_weights_of_several_networks_share_a_panel_per_layer(networks: dict[str, list]):
    panels = drawn(figures.weight_histograms(networks)).axes[:4]
    assert [len(axes.patches) for axes in panels] == [2, 2, 2, 2]
    assert [axes.get_title() for axes in panels] == ["1: 9,216", "2: 9,216", "3: 18,432", "4: 36,864"]
    assert {axes.get_ylim() for axes in panels} == {panels[0].get_ylim()}


def test_a_derivative_is_the_quantizer_s_own():
    x = np.array([-1.5, -0.5, 0.0, 0.25, 2.0], np.float32)
    np.testing.assert_allclose(figures.derivative_of(lq.quantizers.ApproxSign())(x), [0, 1, 2, 1.5, 0])


def test_the_implied_function_has_the_derivative_and_is_odd_at_zero():
    axes = drawn(figures.estimators({"ste": figures.derivative_of(lq.quantizers.SteSign())})).axes[0]
    x, y = axes.lines[1].get_data()
    np.testing.assert_allclose(y, np.clip(x, -1, 1), atol=2e-3)


def test_regularizers_are_lowest_at_the_scale():
    penalties = {"L1": lambda w, alpha: np.abs(alpha - np.abs(w))}
    lines = drawn(figures.regularizers(penalties)).axes[0].lines
    for line, alpha in zip(lines, (0.5, 1.0), strict=True):
        w, penalty = line.get_data()
        assert abs(w[penalty.argmin()]) == pytest.approx(alpha, abs=1e-6)


def test_curves_of_several_runs_share_axes():
    history = [{"epoch": 1.0, "loss": 2.0, "accuracy": 0.3}, {"epoch": 2.0, "loss": 1.0, "accuracy": 0.5}]
    with_validation = [{**row, "val_accuracy": row["accuracy"] / 2} for row in history]
    accuracy, loss = drawn(figures.training_curves({"a": history, "b": with_validation}, "")).axes
    assert [line.get_label() for line in accuracy.lines] == ["a (training images)", "b"]
    assert [line.get_ydata()[-1] for line in accuracy.lines] == [50, 25]
    assert [line.get_ydata()[0] for line in loss.lines] == [2, 2]


def test_flips_are_percentages():
    axes = drawn(figures.flip_ratios({"run": (np.arange(3), np.array([np.nan, 0.1, 0.05]))}, "")).axes[0]
    assert axes.lines[0].get_ydata()[1:].tolist() == [10, 5]
    assert axes.get_ylim()[0] == 0


def test_a_confusion_matrix_is_pale_on_a_light_page_and_dim_on_a_dark_one():
    figure = Figure()
    confusion_matrix(np.array([[35, 1], [0, 36]]), ("cat", "dog"), "").draw(figure)
    cells = figure.axes[0].images[0].get_array()
    assert cells[1, 0, 3] == 0, "cells without images are transparent"

    def brightness(cell: np.ndarray, page: float) -> float:
        return float((cell[3] * cell[:3] + (1 - cell[3]) * page).mean())

    assert brightness(cells[0, 1], page=1.0) > 0.85
    assert brightness(cells[0, 1], page=0.09) < 0.2
    for page in (1.0, 0.09):
        assert 0.2 < brightness(cells[0, 0], page) < 0.5, "white text is read on the diagonal"


def test_dollar_signs_in_names_are_no_formulas():
    names = ["$\\nothing{$", "a $ b $ c"]
    picture = confusion_matrix(np.array([[0, 1], [0, 1]]), names, "two")
    assert b"$\\nothing{$" in picture.light
