"""One stage of a run, from a position to its end."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from kbnn import structure
from kbnn.datasets import Dataset
from kbnn.errors import KbnnError, UsageError
from kbnn.quantizers import EDESign, HalfHalf
from kbnn.training.batch_norm_retraining import BatchNormRetraining
from kbnn.training.distribution import is_multi_worker, training_batches, validation_batches
from kbnn.training.divergence import first_non_finite
from kbnn.training.flip_ratio import FlipRatio
from kbnn.training.interruption import Interruption
from kbnn.training.keeper import Keeper
from kbnn.training.networks import load_source
from kbnn.training.optimizers import optimizer
from kbnn.training.recipe import Stage
from kbnn.training.run import Run
from kbnn.training.schedules import (
    BetaSchedule,
    EDESchedule,
    PercentileSchedule,
    RegularizationWarmup,
    found,
    penalties,
)
from kbnn.training.state import Position, TrainingState, latest
from kbnn.training.trainer import NOT_FINITE, Trainer

Callbacks = Sequence[tf.keras.callbacks.Callback]

_VALIDATION_BATCH = 500


@dataclass(frozen=True)
class Session:
    """What the stages of a run share.

    `run` is what to write to: the run itself, or a scratch folder where another process writes the run.
    """

    run: Run
    data: Dataset
    strategy: tf.distribute.Strategy
    interruption: Interruption
    callbacks: Callbacks

    def train(self, network: tf.keras.Model, position: Position, checkpoint: str | None) -> Position:
        """Trains a stage's network to the end of the stage, and returns the position reached.

        Args:
            network: built in the scope of the strategy.
            position: where to start.
            checkpoint: of that position, if it is not the beginning of the stage.
        """
        recipe, steps = self.run.recipe, self.data.steps(self.run.recipe.data.batch)
        stage = recipe.stage[position.stage]
        if stage.patience and not self.data.validation.size:
            raise UsageError(f"patience={stage.patience} needs images to validate on: received data.validation=0")
        with self.strategy.scope():
            trainer = Trainer(network, stage, _teacher(stage, self.data))
            trainer.compile(optimizer(stage, steps), steps_per_execution=min(recipe.steps_per_execution, steps))
            # As Keras does when it loads a model: a step that finds all its variables made is traced once, not twice.
            trainer.optimizer._create_all_weights(trainer.trainable_variables)
        # Only now that nothing is left to refuse is there a run.
        self.run.write_config()
        state = TrainingState(self.run.checkpoints, network, trainer)
        callbacks = _callbacks(network, stage, first=position.total // steps - position.epoch)
        if checkpoint is not None:
            _restore(state, checkpoint, network)
        alone = not is_multi_worker(self.strategy)
        keeper = Keeper(self.run, network, state, position, steps, self.interruption if alone else None)
        while keeper.position.epoch < stage.epochs and not keeper.out_of_patience():
            flips = [FlipRatio(self.run.folder)] if structure.binary_layers(network) else []
            board = _tensorboard(self.run, histograms=alone)
            self._fit(trainer, keeper, [*callbacks, *flips, keeper, board, *self.callbacks])
        return keeper.position

    def _fit(self, trainer: Trainer, keeper: Keeper, callbacks: Callbacks) -> None:
        """Trains to the end of the stage; only to the end of the epoch, if it starts in the middle of one."""
        recipe, begin = self.run.recipe, keeper.position
        steps, stage = keeper.steps, recipe.stage[keeper.position.stage]
        # Epochs count on from stage to stage. The rest of an epoch is a fit of its own, being shorter.
        epoch, updates = begin.total // steps, int(trainer.optimizer.iterations.numpy())
        try:
            trainer.fit(
                training_batches(self.strategy, self.data, recipe.data.batch, recipe.seed, begin.total),
                initial_epoch=epoch,
                epochs=epoch + (1 if begin.step else stage.epochs - begin.epoch),
                steps_per_epoch=steps - begin.step,
                validation_data=validation_batches(self.data, _VALIDATION_BATCH),
                callbacks=list(callbacks),
                verbose=0,
            )
        except tf.errors.InvalidArgumentError as error:
            if NOT_FINITE not in str(error):
                raise
            raise self._diverged(trainer, begin.total + int(trainer.optimizer.iterations.numpy()) - updates) from error

    def _diverged(self, trainer: Trainer, step: int) -> KbnnError:
        """What is known about a step, counted from 0, whose loss was not finite; the weights are those before it."""
        recipe = self.run.recipe
        images, _ = next(iter(self.data.epochs(recipe.data.batch, seed=recipe.seed, first=step)))
        path, position = latest(self.run.checkpoints)
        kept = f"the last good checkpoint is '{path}' (step {position.total})" if path else "there is no checkpoint yet"
        return KbnnError(
            f"the loss is not finite in step {step + 1} (epoch {step // self.data.steps(recipe.data.batch) + 1}): "
            f"{first_non_finite(trainer, images)}; {kept}; start a new run with a lower learning rate"
        )


def _teacher(stage: Stage, data: Dataset) -> tf.keras.Model | None:
    if stage.distillation is None:
        return None
    teacher = load_source(stage.distillation.teacher)
    if not isinstance(teacher, tf.keras.Model):
        raise UsageError(f"a teacher is a run or a .keras file: received '{stage.distillation.teacher}'")
    if teacher.input_shape[1:] != data.input_shape or teacher.output_shape[-1] != len(data.classes):
        raise UsageError(
            f"teacher '{stage.distillation.teacher}' does not fit data set '{data.name}': received input "
            f"{teacher.input_shape[1:]} and {teacher.output_shape[-1]} classes, the data has {data.input_shape} and "
            f"{len(data.classes)}"
        )
    return teacher


def _callbacks(network: tf.keras.Model, stage: Stage, first: int) -> list[tf.keras.callbacks.Callback]:
    """The schedules that a stage asks for, or its network needs."""
    callbacks: list[tf.keras.callbacks.Callback] = []
    if any(found(network, EDESign)):
        callbacks.append(EDESchedule(stage.epochs, first, *stage.ede))
    if stage.beta is not None:
        callbacks.append(BetaSchedule(*stage.beta, stage.epochs, first))
    if any(isinstance(quantizer.percentile, tf.Variable) for quantizer in found(network, HalfHalf)):
        callbacks.append(PercentileSchedule(stage.percentile, stage.epochs, first))
    if stage.penalty_warmup:
        callbacks.append(RegularizationWarmup(stage.penalty_warmup, first))
    if stage.train == "batch_norm":
        callbacks.append(BatchNormRetraining())
    return callbacks


def _tensorboard(run: Run, histograms: bool) -> tf.keras.callbacks.Callback:
    """Scalars of each epoch, and histograms of all weights.

    Histograms read every variable: where statistics are summed over workers, all of them would have to.
    """
    frequency = 1 if histograms else 0
    return tf.keras.callbacks.TensorBoard(run.logs, histogram_freq=frequency, write_graph=False, profile_batch=0)


def _restore(state: TrainingState, checkpoint: str, network: tf.keras.Model) -> None:
    """Goes back to a checkpoint; penalties keep the strength of the recipe, which a warm-up starts from."""
    strengths = [(penalty.strength, float(penalty.strength.numpy())) for penalty in penalties(network)]
    state.restore(checkpoint)
    for variable, strength in strengths:
        variable.assign(strength)
