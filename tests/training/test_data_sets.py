"""Downloaded data sets, from tensorflow-datasets' records to a trained network, on random images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kbnn.training import Recipe, result, train

pytestmark = [
    pytest.mark.usefixtures("small"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

EXAMPLES = 60


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """tensorflow-datasets generates random images, without a network."""
    monkeypatch.setattr("kbnn.datasets.registry._reach", lambda builder: None)
    with tfds.testing.mock_data(num_examples=EXAMPLES, policy=tfds.testing.MockPolicy.USE_CODE):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "classes", "augmentation"),
    [
        ("cifar100", None, 100, (4, True)),
        ("svhn_cropped", None, 10, (4, False)),
        ("imagenette", 32, 10, (0, True)),
    ],
)
def test_images_become_a_trained_network(
    mocked: None, tmp_path: Path, name: str, size: int | None, classes: int, augmentation: tuple[int, bool]
):
    # So few images leave none of some classes for validation.
    recipe = Recipe.of("tiny", "bireal", name, size=size, epochs=1, batch=24).changed({"data.validation": 0.0})
    assert (recipe.data.pad, recipe.data.flip) == augmentation
    run = train(recipe, tmp_path / "run")
    data = run.dataset()
    assert len(data.classes) == classes
    assert (data.train.size, data.test.size) == (EXAMPLES, EXAMPLES)
    images, labels = next(iter(data.epochs(24, seed=0)))
    assert images.shape == (24, 32, 32, 3)
    assert abs(float(np.mean(images))) < 0.5
    assert 0.3 < float(np.std(images)) < 3
    assert set(labels.numpy()) <= set(range(classes))
    (row,) = run.history()
    assert 0 < row["loss"] < 3 * np.log(classes)
    assert (result(run).samples, run.model().output_shape) == (EXAMPLES, (None, classes))
