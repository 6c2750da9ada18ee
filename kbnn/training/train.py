"""Training from a recipe, epoch by epoch, so that a run goes on where it was interrupted."""

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from kbnn.datasets import Augmentation, Dataset
from kbnn.errors import KbnnError, UsageError
from kbnn.training.recipe import ModelSettings, Recipe, Stage
from kbnn.training.run import History, Run


def train(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> Run:
    """Trains the recipe's network and leaves a run in the folder `output`.

    After each epoch the state (weights, optimizer, epoch) is a checkpoint, `history.csv` has a row more and
    `model.keras` is the model so far; all appear by rename, so an interruption at any moment loses at most the epoch
    under way.

    Args:
        recipe: what to train.
        output: folder of the run; new, empty, or with `resume` one of the same recipe.
        resume: go on after the last finished epoch; a run that does not exist yet is started.
        data_dir: where tensorflow-datasets keeps its prepared data.
        callbacks: further Keras callbacks.

    Raises:
        UsageError: the folder is in use, or resuming with another recipe.
        KbnnError: the data set is absent, or the folder cannot be written.
    """
    run = _open(recipe, output, resume)
    data = run.dataset(data_dir)
    tf.keras.utils.set_random_seed(recipe.seed)
    model = build(recipe.model, data)
    first = 0
    for stage in recipe.stage:
        _train_stage(run, model, data, stage, first, callbacks)
        first += stage.epochs
    return run


def build(settings: ModelSettings, data: Dataset) -> tf.keras.Model:
    """The recipe's network for a data set, from whichever installed package registers its name."""
    for entry in importlib.metadata.entry_points(group="kbnn.architectures"):
        package = entry.load()
        if settings.name in package.names():
            break
    return package.build(
        settings.name, settings.method, input_shape=data.input_shape, classes=len(data.classes), **settings.options
    )


def _open(recipe: Recipe, output: str | os.PathLike[str], resume: bool) -> Run:
    if not resume or not (Path(output) / "config.toml").exists():
        return Run.create(output, recipe)
    run = Run.open(output)
    if run.recipe != recipe:
        raise UsageError(f"run '{run.folder}' has another recipe: resume with its own settings or start a new folder")
    return run


def _train_stage(
    run: Run,
    model: tf.keras.Model,
    data: Dataset,
    stage: Stage,
    first: int,
    callbacks: Sequence[tf.keras.callbacks.Callback],
) -> None:
    settings = run.recipe.data
    steps = data.steps(settings.batch)
    model.compile(
        optimizer(stage, steps),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    checkpoint = EpochCheckpoint(run, first + stage.epochs)
    checkpoint.set_model(model)
    done = checkpoint.restore()
    if done >= first + stage.epochs:
        return
    model.fit(
        data.epochs(settings.batch, Augmentation(settings.pad, settings.flip), seed=run.recipe.seed, first=done),
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=first + stage.epochs,
        validation_data=data.batches(data.validation, 500) if data.validation.size else None,
        callbacks=[checkpoint, *callbacks],
        verbose=0,
    )


def optimizer(stage: Stage, steps: int) -> tf.keras.optimizers.Optimizer:
    """The stage's optimizer and learning-rate schedule; `steps` is the number of steps in an epoch.

    tf-keras's legacy optimizers: the same updates as the newer ones in less time on CPU.
    """
    schedules: dict[str, Callable[[], object]] = {
        "constant": lambda: stage.learning_rate,
        "cosine": lambda: tf.keras.optimizers.schedules.CosineDecay(stage.learning_rate, stage.epochs * steps),
    }
    rate = schedules[stage.schedule]()
    if stage.optimizer == "sgd":
        return tf.keras.optimizers.legacy.SGD(rate, momentum=stage.momentum)
    return tf.keras.optimizers.legacy.Adam(rate)


class EpochCheckpoint(tf.keras.callbacks.Callback):
    """Saves history, model and the whole training state after each epoch, and restores the last one."""

    def __init__(self, run: Run, epochs: int) -> None:
        super().__init__()
        self.run = run
        self.epochs = epochs

    def set_model(self, model: tf.keras.Model) -> None:
        super().set_model(model)
        self._done = tf.Variable(0, trainable=False, dtype=tf.int64)
        state = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epochs_done=self._done)
        self._manager = tf.train.CheckpointManager(state, str(self.run.checkpoints), max_to_keep=2)

    def restore(self) -> int:
        """Restores the last checkpoint, if there is one; the number of finished epochs."""
        if self._manager.latest_checkpoint:
            self._manager.checkpoint.restore(self._manager.latest_checkpoint)
        return int(self._done.numpy())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        rows: History = [*self.run.history()[:epoch], {"epoch": epoch + 1, **(logs or {})}]
        try:
            self.run.write_history(rows)
            self.run.save(self.model)
            self._done.assign(epoch + 1)
            self._manager.save(checkpoint_number=epoch + 1)
        except (OSError, tf.errors.OpError) as error:
            raise KbnnError(
                f"cannot save epoch {epoch + 1} in '{self.run.folder}' ({error}): earlier epochs are safe there, "
                f"make room and go on with --resume"
            ) from error
