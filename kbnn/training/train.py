"""Training from a recipe, so that a run goes on where it was interrupted."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from kbnn import files
from kbnn.errors import KbnnError, UsageError
from kbnn.training.distribution import is_chief, synchronize
from kbnn.training.interruption import Interruption
from kbnn.training.networks import network
from kbnn.training.recipe import Recipe
from kbnn.training.result import conclude, has_result
from kbnn.training.run import Run
from kbnn.training.stage import Callbacks, Session
from kbnn.training.state import latest


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    callbacks: Callbacks = (),
    strategy: tf.distribute.Strategy | None = None,
) -> Run:
    """Trains the recipe's network and leaves a run in the folder `output`.

    After each epoch the state (weights, optimizer, random generators, position) is a checkpoint, `history.csv` has a
    row more, `model.keras` is the model so far and `best.keras` the one that validated best; all appear by rename,
    so that an interruption at any moment loses at most the epoch under way, and SIGTERM and Ctrl-C lose nothing. A
    run that is resumed goes on bit for bit as if it had not been interrupted, on the same machine.

    Args:
        recipe: what to train.
        output: folder of the run; new, empty, or with `resume` one of the same recipe.
        resume: go on where the run was interrupted; a run that does not exist yet is started.
        data_dir: where tensorflow-datasets keeps its prepared data.
        callbacks: further Keras callbacks; epochs count from 0 on through all stages.
        strategy: of `tf.distribute`, for several devices or machines; they share each batch, batch normalization
            takes the statistics of all of it, and one of them writes the run.

    A new run that fails before anything is saved leaves nothing behind.

    Raises:
        UsageError: the folder is in use, another process trains the run, or resuming with other settings.
        KbnnError: the data set is absent, the folder cannot be written or lacks something, the loss is not finite (the
            step, the layer and the last good checkpoint are named), or SIGTERM or Ctrl-C came (`InterruptedRunError`).

    Example:
        >>> run = kbnn.training.train(kbnn.training.Recipe.of("tiny", "bireal", "digits"), "runs/digits")
    """
    strategy = strategy or tf.distribute.get_strategy()
    run = _run(recipe, output, resume) if is_chief(strategy) else Run(Path(output), recipe)
    if has_result(run):
        return run
    data = run.dataset(data_dir)
    with (
        Interruption() as interruption,
        _writable(run, strategy) as written,
        files.held(written.folder),
        _removed_if_in_vain(written),
    ):
        checkpoint, position = latest(run.checkpoints)
        _check_whole(run, epochs=position.total // data.steps(recipe.data.batch))
        session = Session(written, data, strategy, interruption, callbacks)
        model: tf.keras.Model | None = None
        while position.stage < len(recipe.stage):
            tf.keras.utils.set_random_seed(recipe.seed + position.stage)
            with strategy.scope():
                model = network(recipe, recipe.stage[position.stage], data, model)
                synchronize(model, strategy)
            position = session.train(model, position, checkpoint).next_stage()
            checkpoint = None
    if is_chief(strategy):
        conclude(run, data)
    return run


def _check_whole(run: Run, epochs: int) -> None:
    """Refuses to go on from a checkpoint after so many epochs if the history has others."""
    rows = len(run.history())
    # An epoch's row is written before its checkpoint.
    if rows not in (epochs, epochs + 1):
        raise KbnnError(
            f"run '{run.folder}' lacks something: its last checkpoint is of epoch {epochs}, its history of epoch "
            f"{rows}; put back what was removed, or start a new run"
        )


@contextlib.contextmanager
def _removed_if_in_vain(run: Run) -> Iterator[None]:
    """Takes a new run's folder away when an error comes before there is anything to go on from."""
    is_new = not Run.exists(run.folder)
    try:
        yield
    except Exception:
        if is_new and not run.has("model") and not tf.train.latest_checkpoint(str(run.checkpoints)):
            files.discard(run.folder, Run.MEMBERS)
        raise


@contextlib.contextmanager
def _writable(run: Run, strategy: tf.distribute.Strategy) -> Iterator[Run]:
    """The run, or a scratch copy of its history for a worker that takes part in saving but does not write the run."""
    if is_chief(strategy):
        yield run
        return
    with tempfile.TemporaryDirectory() as scratch:
        if run.history():
            shutil.copy(run.folder / "history.csv", scratch)
        yield Run(Path(scratch), run.recipe)


def _run(recipe: Recipe, output: str | os.PathLike[str], resume: bool) -> Run:
    if not resume or not Run.exists(output):
        return Run.new(output, recipe)
    run = Run.open(output)
    changed = run.recipe.differences(recipe)
    if changed:
        raise UsageError(
            f"run '{run.folder}' was started with other settings ({'; '.join(changed)}): "
            f"resume it with its own, or start a new one in another folder"
        )
    return run
