"""Training from a recipe, so that a run goes on where it was interrupted."""

import os
from collections.abc import Sequence

import tensorflow as tf

from kbnn.datasets import Dataset
from kbnn.errors import KbnnError, UsageError
from kbnn.training.divergence import first_non_finite
from kbnn.training.ede_schedule import EDESchedule
from kbnn.training.interruption import Interruption
from kbnn.training.keeper import Keeper
from kbnn.training.networks import network
from kbnn.training.optimizers import optimizer
from kbnn.training.recipe import Recipe
from kbnn.training.result import conclude
from kbnn.training.run import Run
from kbnn.training.state import Position, TrainingState, latest
from kbnn.training.trainer import NOT_FINITE, Trainer

Callbacks = Sequence[tf.keras.callbacks.Callback]

_VALIDATION_BATCH = 500


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    callbacks: Callbacks = (),
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

    Raises:
        UsageError: the folder is in use, or resuming with other settings.
        KbnnError: the data set is absent, the folder cannot be written, the loss is not finite (the step, the layer
            and the last good checkpoint are named), or SIGTERM or Ctrl-C came (`InterruptedRunError`).

    Example:
        >>> run = kbnn.training.train(kbnn.training.Recipe.of("tiny", "bireal", "digits"), "runs/digits")
    """
    run = _run(recipe, output, resume)
    data = run.dataset(data_dir)
    data.steps(recipe.data.batch)
    _, position = latest(run.checkpoints)
    with Interruption() as interruption:
        while position.stage < len(recipe.stage):
            tf.keras.utils.set_random_seed(recipe.seed + position.stage)
            model = network(recipe, data)
            run.write_config()
            position = _train_stage(run, data, model, position, interruption, callbacks).next_stage()
    conclude(run, data)
    return run


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


def _train_stage(
    run: Run,
    data: Dataset,
    model: tf.keras.Model,
    position: Position,
    interruption: Interruption,
    callbacks: Callbacks,
) -> Position:
    """Trains from a position to the end of its stage, and returns the position reached."""
    recipe = run.recipe
    stage, steps = recipe.stage[position.stage], data.steps(recipe.data.batch)
    trainer = Trainer(model, stage)
    trainer.compile(optimizer=optimizer(stage, steps), steps_per_execution=min(recipe.steps_per_execution, steps))
    state = TrainingState(run.checkpoints, model, trainer)
    if position.epoch or position.step:
        state.restore()
    keeper = Keeper(run, model, state, position, steps, interruption)
    schedule = EDESchedule(stage.epochs, first=sum(earlier.epochs for earlier in recipe.stage[: position.stage]))
    while keeper.position.epoch < stage.epochs:
        begin, updates = keeper.position, int(trainer.optimizer.iterations)
        # Epochs count on from stage to stage; the rest of an interrupted one is a fit of its own, being shorter.
        epoch = begin.total // steps
        remaining = 1 if begin.step else stage.epochs - begin.epoch
        try:
            trainer.fit(
                data.epochs(recipe.data.batch, seed=recipe.seed, first=begin.total),
                initial_epoch=epoch,
                epochs=epoch + remaining,
                steps_per_epoch=steps - begin.step,
                validation_data=data.batches(data.validation, _VALIDATION_BATCH) if data.validation.size else None,
                callbacks=[keeper, schedule, *callbacks],
                verbose=0,
            )
        except tf.errors.InvalidArgumentError as error:
            if NOT_FINITE not in str(error):
                raise
            raise _diverged(run, data, model, begin.total + int(trainer.optimizer.iterations) - updates) from error
    return keeper.position


def _diverged(run: Run, data: Dataset, model: tf.keras.Model, step: int) -> KbnnError:
    """What is known about a step, counted from 0, whose loss was not finite; the weights are those before it."""
    recipe = run.recipe
    images, _ = next(iter(data.epochs(recipe.data.batch, seed=recipe.seed, first=step)))
    path, position = latest(run.checkpoints)
    kept = f"the last good checkpoint is '{path}' (step {position.total})" if path else "no checkpoint was written yet"
    return KbnnError(
        f"the loss is not finite in step {step + 1} (epoch {step // data.steps(recipe.data.batch) + 1}): "
        f"{first_non_finite(model, images)}; {kept}; start a new run with a lower learning rate"
    )
