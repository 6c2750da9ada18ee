"""Runs of a small network."""

from collections.abc import Callable

import pytest
import sample_runs
import tensorflow as tf

from kbnn.training import Recipe, Run, train


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return sample_runs.recipe()


@pytest.fixture(scope="session")
def network() -> Callable[..., tf.keras.Model]:
    return sample_runs.network


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every recipe train the small network, whichever architecture it names."""
    monkeypatch.setattr("kbnn.training.networks.build", sample_runs.network)


@pytest.fixture(scope="session")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of the small network."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kbnn.training.networks.build", sample_runs.network)
        return train(recipe, tmp_path_factory.mktemp("runs") / "finished")
