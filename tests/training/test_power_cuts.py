"""A power cut at any moment of a training loses only the current epoch."""

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sample_runs
import tensorflow as tf
from power_cuts import Cut, Disk
from sample_runs import assert_equal

from kbnn.training import Recipe, Run, train
from kbnn.training.checkpoints import latest
from kbnn.training.learner import Learner

pytestmark = pytest.mark.usefixtures("small")


class Finished(tf.keras.callbacks.Callback):
    """Counts the epochs that have been saved."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.disk.finished = epoch + 1


@contextlib.contextmanager
def watched_training(recipe: Recipe, parent: Path) -> Iterator[list[Cut]]:
    """Trains a recipe, and yields what power cuts would have left on the disk."""
    folder = parent / "disk"
    (folder / "root").mkdir(parents=True)
    disk = Disk(folder / "root", folder / "images", seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kbnn.training.networks.build", sample_runs.network)
        disk.watch(patch)
        train(recipe, folder / "root" / "runs" / "run", callbacks=[Finished(disk)])
    yield disk.cuts
    disk.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cuts(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Cut]]:
    with watched_training(recipe, tmp_path_factory.mktemp("cuts")) as found:
        yield found


def run_of(cut: Cut) -> Path:
    return cut.folder / "runs" / "run"


@pytest.mark.slow
def test_every_power_cut_keeps_the_last_finished_epoch(cuts: list[Cut]):
    assert len(cuts) > 60
    assert {cut.finished for cut in cuts} == {0, 1, 2, 3}
    for cut in cuts:
        if not Run.exists(run_of(cut)):
            assert cut.finished == 0
            continue
        run, checkpoint = Run.open(run_of(cut)), latest(run_of(cut) / "checkpoints")
        epoch = checkpoint.position.epoch if checkpoint and checkpoint.position.stage == 0 else 0
        if checkpoint and checkpoint.position.stage == 1:
            # The checkpoints are removed only after the result was saved.
            assert (run.folder / "result.json").is_file()
            continue
        assert epoch >= cut.finished
        assert len(run.history()) >= epoch
        if epoch:
            assert run.model().count_params()


def resumed(cut: Cut, recipe: Recipe) -> Run:
    return train(recipe, run_of(cut), resume=True, quiet=True)


def leftovers(run: Run) -> list[Path]:
    """Temporary files that a cut left behind."""
    return list(run.folder.rglob(".*kbnn-*"))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.15, 0.6])
def test_a_run_resumes_after_a_cut(cuts: list[Cut], recipe: Recipe, finished: Run, share: float):
    run = resumed(cuts[int(share * len(cuts))], recipe)
    assert_equal(run, finished)
    assert not leftovers(run)


@pytest.fixture
def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the few steps of each training eagerly, which takes less time than tracing them."""
    compile_ = Learner.compile
    monkeypatch.setattr(Learner, "compile", lambda *args, **kwargs: compile_(*args, **{**kwargs, "run_eagerly": True}))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_fifty_cuts(recipe: Recipe, tmp_path: Path):
    with watched_training(recipe, tmp_path) as cuts:
        finished = train(recipe, tmp_path / "finished")
        for cut in random.Random(0).sample(cuts, 50):  # noqa: S311
            run = resumed(cut, recipe)
            assert_equal(run, finished)
            assert not leftovers(run)
