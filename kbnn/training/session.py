"""Trains a recipe: `Learner.fit` with kbnn's callbacks, in a run that can be resumed."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from kbnn import files, regularizers, structure, weights
from kbnn.datasets import Dataset, Given
from kbnn.errors import KbnnError, UsageError
from kbnn.training import results
from kbnn.training.callbacks import BatchNormRetraining, FlipRatio, sign_kernels
from kbnn.training.checkpoints import Checkpoint, Position, TrainingState, finish, latest
from kbnn.training.distribution import is_chief, is_multi_worker, synchronize, training_batches, validation_batches
from kbnn.training.keeper import Interruption, Keeper
from kbnn.training.learner import DivergenceError, Learner
from kbnn.training.networks import check, check_teacher_exists, network
from kbnn.training.optimizers import optimizer
from kbnn.training.progress import Progress, TrainingPlan
from kbnn.training.recipe import Recipe, Stage
from kbnn.training.run import Run, given_data, load_data
from kbnn.training.schedules import QuantizerSchedule, RegularizationWarmup, penalties, scheduled

Callbacks = Sequence[tf.keras.callbacks.Callback]

_VALIDATION_BATCH = 500
# How often a run logs histograms of all weights to TensorBoard, so that the logs of long runs stay small.
_HISTOGRAMS = 20


def train(
    recipe: Recipe,
    output: str | os.PathLike[str] | None = None,
    *,
    data: Given | None = None,
    resume: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    callbacks: Callbacks = (),
    strategy: tf.distribute.Strategy | None = None,
    quiet: bool = False,
) -> Run:
    """Trains the recipe's network and writes a run to the folder `output`.

    After each epoch, the state (weights, optimizer, random generators, position) is saved as a checkpoint,
    `history.csv` gets another row, and `model.keras` and `best.keras` hold the latest model and the one with the best
    validation accuracy. Every file is flushed to disk before it replaces the previous one, so an interruption at any
    time, even a power cut, loses at most the current epoch; Ctrl-C, SIGTERM and SIGHUP (a closed terminal) lose
    nothing. On the same machine, a resumed run continues bit for bit as if it had not been interrupted. Errors in the
    settings of later stages are raised before the first step. A new run that fails before anything is saved leaves
    nothing behind.

    Args:
        recipe: what to train.
        output: folder of the run: new, empty, or with `resume`, a run of the same recipe. `runs/NAME` by default.
        data: replaces the recipe's data: a `kbnn.datasets.Dataset`, a pair of NumPy arrays, a `tf.data.Dataset`, or a
            dictionary of these, see `kbnn.datasets.of`.
        resume: continue an interrupted run; a run that does not exist yet is started. The recipe must be the run's own,
            but its folder of images and its teachers may be at other places than before.
        data_dir: where tensorflow-datasets keeps its prepared data.
        callbacks: further Keras callbacks; epochs count from 0 through all stages.
        strategy: a `tf.distribute` strategy for several devices or machines. They split each batch, batch normalization
            uses the statistics of the whole batch, and one of them writes the run.
        quiet: print nothing on stderr.

    Raises:
        UsageError: the recipe cannot work, the folder is in use, another process trains the run, or it is resumed with
            other settings or data.
        DivergenceError: the loss is not finite; the message names the step, the layer and the last good checkpoint.
        InterruptedRunError: SIGINT (Ctrl-C), SIGTERM or SIGHUP was received; the run is saved.
        KbnnError: the data set is not available, or the folder cannot be written or is incomplete.

    Example:
        >>> run = kbnn.training.train(kbnn.training.Recipe.of("tiny", "bireal", "digits"), "runs/digits")
        >>> run = kbnn.training.train(kbnn.training.Recipe.of("tiny", "bireal"), data=(images, labels))
    """
    strategy = strategy or tf.distribute.get_strategy()
    folder = Path("runs") / recipe.name if output is None else Path(output)
    recipe = recipe.with_absolute_paths()
    run = _run(recipe, folder, resume) if is_chief(strategy) else Run(folder, recipe)
    if results.has_result(run):
        return run
    check(run.recipe, is_new=not Run.exists(folder))
    found = load_data(run.recipe.data, data_dir) if data is None else given_data(data, run.recipe.data)
    run.check_data(found)
    position = _train(run, found, strategy, callbacks, quiet)
    if is_chief(strategy):
        results.conclude(run, found)
        finish(run.checkpoints, position)
    return run


def _train(run: Run, data: Dataset, strategy: tf.distribute.Strategy, callbacks: Callbacks, quiet: bool) -> Position:
    """Trains a run that no other process trains, and returns the position reached."""
    with (
        Interruption() as interruption,
        _writable(run, strategy) as written,
        files.held(written.folder),
        _removed_if_nothing_was_saved(written),
        Progress(run.recipe.epochs) as progress,
    ):
        shown = progress if is_chief(strategy) and not quiet else None
        return Session(written, data, strategy, interruption, callbacks, shown).train()


@dataclass(frozen=True)
class Session:
    """The training of a run.

    `run` is the run to write: in a process that does not write the actual run, a scratch copy of it.
    """

    run: Run
    data: Dataset
    strategy: tf.distribute.Strategy
    interruption: Interruption
    callbacks: Callbacks
    progress: Progress | None

    @property
    def batch(self) -> int:
        return self.run.recipe.data.batch_for(self.data.train.size)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return self.data.steps(self.batch)

    def train(self) -> Position:
        """Trains all stages, starting from the last checkpoint, and returns the position reached."""
        self.run.remove_leftovers()
        checkpoint = latest(self.run.checkpoints)
        position = checkpoint.position if checkpoint else Position()
        _check_whole(self.run, position.total // self.steps)
        _check_validation(self.run.recipe, self.data)
        self._rehearse(position.stage, is_restored=checkpoint is not None)
        if Run.exists(self.run.folder):
            # Its images and teachers may have moved.
            self.run.start(self.data)
        model: tf.keras.Model | None = None
        while position.stage < len(self.run.recipe.stage):
            model = self._network(
                position.stage, self._start(position.stage, model), is_restored=checkpoint is not None
            )
            position = self._train_stage(model, position, checkpoint).next_stage()
            checkpoint = None
        return position

    def _rehearse(self, first: int, is_restored: bool) -> None:
        """Prepares all stages as training will, so that an error in a later one is raised before the first step.

        Args:
            first: the stage in which training starts; it is prepared anyway if it is the last one.
            is_restored: whether a checkpoint has its weights.

        Raises:
            KbnnError: a stage cannot be trained; the message has its number.
        """
        stages = self.run.recipe.stage
        model: tf.keras.Model | None = None
        for place in range(first, len(stages)) if len(stages) - first > 1 else range(0):
            try:
                model = self._network(place, model, is_restored=is_restored)
                with self.strategy.scope():
                    _learner(model, stages[place], self.data)
                    _callbacks(model, stages[place], first=0)
                    if stages[place].train == "batch_norm":
                        sign_kernels(model)
            except KbnnError as error:
                kind = UsageError if isinstance(error, UsageError) else KbnnError
                raise kind(f"stage {place + 1}: {error}", parameter=error.parameter) from error

    def _start(self, place: int, previous: tf.keras.Model | None) -> tf.keras.Model | None:
        """The model whose weights a stage starts from; None for the first stage, or if a checkpoint has them."""
        if previous is None or self.run.recipe.stage[place].start == "last":
            return previous
        return self.run.model("best")

    def _network(self, place: int, previous: tf.keras.Model | None, *, is_restored: bool) -> tf.keras.Model:
        recipe = self.run.recipe
        tf.keras.utils.set_random_seed(recipe.seed + place)
        with self.strategy.scope():
            model = network(recipe, recipe.stage[place], self.data, previous, is_restored=is_restored)
            synchronize(model, self.strategy)
        return model

    def _announce(self, progress: Progress, model: tf.keras.Model, position: Position) -> None:
        if not position.total:
            progress.say(TrainingPlan.of(self.run.recipe, self.data, model, self.batch))
        elif position.epoch or position.step:
            progress.say(f"resuming after step {position.total}, in epoch {position.total // self.steps + 1}")

    def _train_stage(self, network: tf.keras.Model, position: Position, checkpoint: Checkpoint | None) -> Position:
        """Trains a stage's network to the end of the stage, and returns the position reached.

        Args:
            network: the stage's network, built in the scope of the strategy.
            position: where to start.
            checkpoint: the checkpoint of that position, unless it is the beginning of the stage.
        """
        recipe, steps = self.run.recipe, self.steps
        stage = recipe.stage[position.stage]
        with self.strategy.scope():
            callbacks = _callbacks(network, stage, first=position.total // steps - position.epoch)
            learner = _learner(network, stage, self.data)
            learner.compile(optimizer(stage, steps), steps_per_execution=min(recipe.steps_per_execution, steps))
            # As Keras does when it loads a model: with all variables in place, the step is traced only once.
            learner.optimizer._create_all_weights(learner.trainable_variables)
        # The run's folder is written only after all checks have passed.
        self.run.start(self.data)
        if self.progress is not None:
            self._announce(self.progress, network, position)
        state = TrainingState(self.run.checkpoints, network, learner)
        if checkpoint is not None:
            _restore(state, checkpoint, network)
        alone = not is_multi_worker(self.strategy)
        keeper = Keeper(self.run, network, state, position, steps, self.interruption if alone else None)
        if checkpoint is None and stage.start == "best":
            # The first epoch replaces the model that this stage starts from, so resuming needs a checkpoint before it.
            keeper.checkpoint()
        while keeper.position.epoch < stage.epochs and not keeper.out_of_patience():
            flips = [FlipRatio(self.run.folder)] if structure.binary_layers(network) else []
            board = _tensorboard(self.run, histograms=alone)
            shown = [self.progress] if self.progress is not None else []
            self._fit(learner, keeper, [*callbacks, *flips, keeper, board, *shown, *self.callbacks])
        return keeper.position

    def _fit(self, learner: Learner, keeper: Keeper, callbacks: Callbacks) -> None:
        """Trains to the end of the stage, or to the end of the epoch if training resumes within an epoch."""
        recipe, begin = self.run.recipe, keeper.position
        steps, stage = keeper.steps, recipe.stage[keeper.position.stage]
        # Epochs are numbered through all stages. The rest of an interrupted epoch is a separate, shorter fit.
        epoch = begin.total // steps
        try:
            learner.fit(
                training_batches(self.strategy, self.data, self.batch, recipe.seed, begin.total),
                initial_epoch=epoch,
                epochs=epoch + (1 if begin.step else stage.epochs - begin.epoch),
                steps_per_epoch=steps - begin.step,
                validation_data=validation_batches(self.data, _VALIDATION_BATCH),
                callbacks=list(callbacks),
                verbose=0,
            )
        except DivergenceError as error:
            step = begin.total + error.step
            remedy = f"{self._kept()}; start a new run with a lower learning rate"
            raise DivergenceError(step, error.origin, remedy, (step - 1) // steps + 1) from error
        except (tf.errors.OutOfRangeError, tf.errors.ResourceExhaustedError, OSError) as error:
            # The disk is full when TensorBoard writes its logs, or the network does not fit into memory.
            reason = " ".join(str(error).split())[:300]
            raise KbnnError(
                f"run '{self.run.folder}' stopped after step {keeper.position.total} ({reason}): {self._kept()}; "
                f"free space or memory, and resume it"
            ) from error

    def _kept(self) -> str:
        saved = latest(self.run.checkpoints)
        if saved is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is '{saved.path}' (step {saved.position.total})"


def _check_validation(recipe: Recipe, data: Dataset) -> None:
    """Raises UsageError if a stage needs validation accuracies, and the data has no validation images."""
    if data.validation.size:
        return
    for number, stage in enumerate(recipe.stage, start=1):
        needing = {"patience": stage.patience, "start": stage.start if stage.start == "best" else None}
        for setting, value in needing.items():
            if value is not None:
                raise UsageError(
                    f"stage.{number}.{setting}={value!r} needs validation images: received data.validation="
                    f"{recipe.data.validation:g} and data '{data.name}' without any"
                )


def _learner(network: tf.keras.Model, stage: Stage, data: Dataset) -> Learner:
    """A learner for a stage's network, with the stage's label smoothing, weight decay and teacher."""
    if stage.weight_decay:
        regularizers.add_weight_decay(network, stage.weight_decay, _not_decayed(network, stage))
    if stage.distillation is None:
        return Learner(network, label_smoothing=stage.label_smoothing)
    settings = stage.distillation
    return Learner(
        network,
        label_smoothing=stage.label_smoothing,
        teacher=_teacher(settings.teacher, data),
        share=settings.share,
        temperature=settings.temperature,
    )


def _not_decayed(network: tf.keras.Model, stage: Stage) -> list[tf.Variable]:
    """The weights that a stage excludes from weight decay."""
    if stage.decay == "all":
        return []
    if stage.decay == "convolutions":
        return [weight for weight in network.trainable_weights if weight.shape.rank != 4]
    return regularizers.binarized_weights(network)


def _teacher(path: str, data: Dataset) -> tf.keras.Model:
    """The teacher at a path.

    Raises:
        UsageError: it is missing, or takes other images or knows other classes than the data set.
        KbnnError: it is a run that has no model yet, or its file is damaged.
    """
    check_teacher_exists(path)
    teacher = weights.load_source(path)
    if not isinstance(teacher, tf.keras.Model):
        raise UsageError(f"a teacher must be a run or a .keras file: received '{path}'")
    given, returned = getattr(teacher, "input_shape", None), getattr(teacher, "output_shape", None)
    if not isinstance(given, tuple) or not isinstance(returned, tuple):
        raise UsageError(
            f"teacher '{path}' must have one input and one output: received the shapes {given} and {returned}"
        )
    images, classes = given[1:], returned[-1]
    data.check_fits(images, classes, f"teacher '{path}'")
    # Data that is passed in Python may have no names of classes, only numbers.
    if Run.exists(path) and data.classes != tuple(map(str, range(classes))):
        Run.open(path).check_classes(data)
    return teacher


def _callbacks(network: tf.keras.Model, stage: Stage, first: int) -> list[tf.keras.callbacks.Callback]:
    """The schedules of a stage.

    Raises:
        UsageError: they have no effect on the network, or a quantizer rejects a setting.
    """
    schedules: list[QuantizerSchedule | RegularizationWarmup] = []
    if stage.quantizers or list(scheduled(network)):
        schedules.append(QuantizerSchedule(stage.epochs, first, **stage.quantizers))
    if stage.penalty_warmup:
        schedules.append(RegularizationWarmup(stage.penalty_warmup, first))
    for schedule in schedules:
        schedule.check(network)
    callbacks: list[tf.keras.callbacks.Callback] = list(schedules)
    if stage.train == "batch_norm":
        callbacks.append(BatchNormRetraining())
    return callbacks


def _tensorboard(run: Run, histograms: bool) -> tf.keras.callbacks.Callback:
    """Logs scalars in every epoch, and optionally histograms of all weights in some of them.

    Histograms read every variable. With several workers, reading a summed statistic needs all of them, so there they
    are turned off.
    """
    frequency = -(-run.recipe.epochs // _HISTOGRAMS) if histograms else 0
    return tf.keras.callbacks.TensorBoard(run.logs, histogram_freq=frequency, write_graph=False, profile_batch=0)


def _restore(state: TrainingState, checkpoint: Checkpoint, network: tf.keras.Model) -> None:
    """Restores a checkpoint; penalties keep the recipe's strength, from which a warm-up starts."""
    strengths = [(penalty.strength, float(penalty.strength.numpy())) for penalty in penalties(network)]
    state.restore(checkpoint)
    for variable, strength in strengths:
        variable.assign(strength)


def _check_whole(run: Run, epochs: int) -> None:
    """Raises KbnnError if the history does not match a checkpoint after `epochs` epochs."""
    rows = len(run.history())
    # An epoch's row is written before its checkpoint, and the newest checkpoint may be damaged.
    if not epochs <= rows <= epochs + 2 or (not epochs and rows > 1):
        raise KbnnError(
            f"run '{run.folder}' is incomplete: its last checkpoint is from epoch {epochs}, its history ends at epoch "
            f"{rows}; restore the missing files, or start a new run"
        )


@contextlib.contextmanager
def _removed_if_nothing_was_saved(run: Run) -> Iterator[None]:
    """Removes a new run's folder if an error occurs before there is anything to resume from."""
    is_new = not Run.exists(run.folder)
    try:
        yield
    except Exception:
        if is_new and not run.has("model") and not latest(run.checkpoints):
            files.discard(run.folder, Run.MEMBERS)
        raise


@contextlib.contextmanager
def _writable(run: Run, strategy: tf.distribute.Strategy) -> Iterator[Run]:
    """Yields the run, or in workers that do not write it, a scratch copy: they take part in saving, too."""
    if is_chief(strategy):
        yield run
        return
    with files.scratch() as scratch:
        # A folder of its own: the scratch folder is locked, as training locks the one that it writes.
        folder = scratch / "run"
        folder.mkdir()
        for name in ("history.csv", "best.keras", "checkpoints"):
            if (run.folder / name).is_dir():
                shutil.copytree(run.folder / name, folder / name)
            elif (run.folder / name).exists():
                shutil.copy(run.folder / name, folder)
        yield Run(folder, run.recipe)


def _run(recipe: Recipe, output: Path, resume: bool) -> Run:
    Run(output, recipe).check_folders()
    Run(output, recipe).remove_leftovers()
    if not resume or not Run.exists(output):
        return Run.new(output, recipe)
    run = Run.open(output)
    wanted = recipe.without_figures()
    known = run.recipe.with_absolute_paths().at_the_places_of(recipe)
    changed = known.without_figures().differences(wanted)
    if changed:
        raise UsageError(
            f"run '{run.folder}' was started with other settings ({'; '.join(changed)}): "
            f"resume it with its own, or start a new one in another folder"
        )
    return Run(output, known)
