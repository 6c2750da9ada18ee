"""Every computed table agrees with the paper, and a wrong network is detected."""

import numpy as np
import pytest

from kbnn import models, reproduction
from kbnn.analysis import figures
from kbnn.errors import UsageError

COMPUTED = [table for table in reproduction.tables() if isinstance(table, reproduction.AnalyticTable)]


@pytest.mark.core("siman-corollaries")
@pytest.mark.parametrize("table", COMPUTED, ids=lambda table: table.name)
def test_every_computed_table_agrees_with_the_paper(table: reproduction.AnalyticTable):
    comparison = table.compare(models.build)
    assert comparison.cells
    assert comparison.agrees, str(comparison)


@pytest.mark.slow
def test_a_wrong_count_is_detected():
    def shallow(*arguments: object, **options: object) -> object:
        return models.build(*arguments, **options, blocks=2)

    assert not reproduction.get("mlbma-entropy").compare(shallow).agrees


def test_similar_names_are_suggested():
    with pytest.raises(UsageError, match="did you mean bireal-table3"):
        reproduction.get("bireal-table-3")


def test_names_are_unique_and_sourced():
    names = [table.name for table in reproduction.tables()]
    assert len(set(names)) == len(names)
    assert all(table.source for table in reproduction.tables())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bnnplus-figure4", "bnnplus-figure5", "presb-figure5", "presb-figure6"])
def test_figures_of_formulas_are_drawn(name: str):
    picture = reproduction.get(name).draw()
    assert picture.png.startswith(b"\x89PNG")
    assert picture.light != picture.dark


@pytest.mark.parametrize(("gap", "after"), [(6.0, 1.93), (0.2, 0.251)])
def test_layer_normalization_balances_groups(gap: float, after: float):
    """By hand: deviations 1 and 0.5 and means 0 and g have variance (1 + 0.25)/2 + g²/4 in all."""
    groups = np.random.default_rng(0).normal(size=(2, 200_000)) * [[1.0], [0.5]] + [[0.0], [gap]]
    means = figures.layer_normalized(groups).mean(1)
    assert means[1] - means[0] == pytest.approx(after, rel=0.02)


def test_sign_swish_has_the_zero_of_the_papers_formula():
    from matplotlib.figure import Figure

    figure = Figure()
    reproduction.get("bnnplus-figure4").draw().draw(figure)
    forward, backward = figure.axes
    labels = [line.get_label() for line in forward.lines]
    x, slope = backward.lines[labels.index("sign_swish, β = 5") - 1].get_data()
    crossings = x[:-1][np.diff(np.sign(slope)) != 0]
    np.testing.assert_allclose(np.abs(crossings), 2.3994 / 5, atol=2e-3)
