"""Training registered networks by name."""

from pathlib import Path

import pytest

from kbnn.errors import UsageError
from kbnn.training import Recipe, train


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "tinny"}, "unknown model: received 'tinny'; did you mean tiny?"),
        ({"model.method": "bireel"}, "unknown method: received 'bireel'; did you mean bireal"),
        ({"data.name": "digit"}, "unknown data set: received 'digit'; did you mean digits?"),
        ({"model.options.widht": 1.0}, "received 'widht'; did you mean width?"),
        ({"data.batch": 2000}, "received 2000, choose 1 to 1293"),
    ],
)
def test_invalid_recipes_leave_no_files(recipe: Recipe, tmp_path: Path, changes: dict[str, object], message: str):
    with pytest.raises(UsageError) as caught:
        train(recipe.changed(changes), tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("model", "method"), [("tniy", "bireal"), ("tiny", "birael")])
def test_a_misspelt_name_is_refused_before_the_data_are_loaded(model: str, method: str, tmp_path: Path):
    recipe = Recipe.of(model, method, folder=tmp_path / "absent", size=32)
    with pytest.raises(UsageError, match=f"received '{model if model != 'tiny' else method}'; did you mean"):
        train(recipe, tmp_path / "run")
