"""Networks of the zoo in training, found by name."""

from pathlib import Path
from typing import Any

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
def test_what_cannot_be_trained_leaves_nothing(recipe: Recipe, tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UsageError) as caught:
        train(recipe.changed(changes), tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
