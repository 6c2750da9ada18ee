"""A recipe: everything that determines a training run, typed, as one TOML file."""

import copy
import difflib
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from kbnn import files, pretrained
from kbnn.errors import UsageError

if TYPE_CHECKING:
    from kbnn.datasets.transform import Transform
    from kbnn.methods import Method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Values of TOML by key.
Tables = dict[str, object]

# Marks the fields of a stage that count epochs: they scale with the stage's length.
IN_EPOCHS = "counts epochs"
# What `Stage.quantizers` must not contain: the stage itself passes these to the schedules of quantizers.
_PASSED_BY_THE_STAGE = {"progress", "epochs", "first", "self"}
# Path components that are safe as folder names below `runs/`; `GRID/VARIANT` is also a name.
_NAME = re.compile(r"(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f]+(?:/(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f]+)*")


def _method_name(method: object) -> object:
    """The name of a `kbnn.methods.Method`; anything else is returned unchanged."""
    if isinstance(method, str | None):
        return method
    from kbnn.methods import Method, name_of

    return name_of(method) if isinstance(method, Method) else method


MethodName = Annotated[str, BeforeValidator(_method_name)]


METHOD = "bireal"
BATCH = 128
# A batch size that is chosen automatically leaves at least this many steps in an epoch.
STEPS = 8


# The largest recipe in bytes; those that ship have less than 2 kB.
_LARGEST = 1_000_000

# The validation context of recipes that a run recorded.
_RECORDED = object()


@dataclass(frozen=True)
class OnlyIf:
    """Marks a field that has an effect only if a condition on its table holds; otherwise it must keep its default."""

    condition: Callable[..., bool]
    needs: str


class TomlTable(BaseModel):
    """One table of a recipe; unknown keys, wrong types and settings without an effect are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="after")
    def _settings_have_an_effect(self, info: ValidationInfo) -> "TomlTable":
        if info.context is _RECORDED:
            return self
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            for only in (mark for mark in field.metadata if isinstance(mark, OnlyIf)):
                if value != field.default and not only.condition(self):
                    raise ValueError(
                        f"{name} has an effect only with {only.needs}: received {name}={value!r}, remove it (its "
                        f"default is {field.default!r}) or change the other setting"
                    )
        return self


# The keys of `[data]` that neither name the images nor transform them.
_READING = {"unreadable", "max_bytes", "max_pixels"}
_FEEDING = {*_READING, "validation", "batch"}
_IN_A_FOLDER = OnlyIf(lambda data: data.folder is not None, "data.folder")


class DataSettings(TomlTable):
    """`[data]`: which images to train on, and how they are batched and augmented.

    `pad` and the fields after it are those of `kbnn.datasets.Transform`.

    Args:
        name: a data set, see `kbnn.datasets.names()`.
        folder: your own images, one sub-folder per class. Without `name` and `folder`, pass `data` to `train`.
        unreadable: "refuse" for an error if an image of a folder cannot be read, "skip" to leave it out.
        max_bytes: largest size of an image file of a folder, see `kbnn.datasets.load_folder`.
        max_pixels: largest number of pixels of an image of a folder.
        validation: share of the training images that is held out for validation.
        batch: images per step. If not given, at most 128, and few enough for 8 steps in an epoch.
    """

    name: str | None = None
    folder: str | None = None
    unreadable: Annotated[Literal["refuse", "skip"], _IN_A_FOLDER] = "refuse"
    max_bytes: Annotated[int | None, _IN_A_FOLDER] = Field(None, ge=1)
    max_pixels: Annotated[int | None, _IN_A_FOLDER] = Field(None, ge=1)
    validation: Share = 0.1
    batch: int | None = Field(None, ge=1)
    pad: int = Field(0, ge=0)
    flip: bool = False
    resize: int | None = Field(None, ge=1)
    square: bool = False
    size: int | None = Field(None, ge=1)
    scale: tuple[Share, Positive] | None = Field(None, strict=False)

    @model_validator(mode="after")
    def _one_source(self) -> "DataSettings":
        if self.name is not None and self.folder is not None:
            raise ValueError("give either name (a known data set) or folder (your own images), not both")
        return self

    def feeding(self) -> Tables:
        """All fields except the source of the images and the augmentation."""
        return self.model_dump(include=_FEEDING)

    def transform(self) -> "Transform | None":
        """The augmentation, resizing and cropping that is set; None if nothing is set."""
        from kbnn.datasets.transform import Transform

        fields = self.model_dump(exclude={"name", "folder", *_FEEDING}, exclude_defaults=True)
        return Transform(**fields) if fields else None

    def batch_for(self, images: int) -> int:
        """The batch size for a number of training images: the one that is set, or a suitable power of two."""
        if self.batch is not None:
            return self.batch
        fitting = max(images // STEPS, 1)
        return min(BATCH, 2 ** (fitting.bit_length() - 1))


class ModelSettings(TomlTable):
    """`[model]`: the architecture, the method, the architecture's options, and weights to start from.

    Args:
        name: an architecture, see `kbnn.models.names()`.
        method: see `kbnn.methods.names()`.
        options: options of the architecture.
        activations: input quantizer, instead of the method's.
        kernels: kernel quantizer, instead of the method's.
        scale: output scale, instead of the method's.
        scale_scope: "filter" or "layer": one learned scale per filter, or one for the layer.
        penalty: λ of the method's penalty.
        initializer: initializer of all kernels.
        weights: weights to start from: the name or data set of weights that ship (`kbnn models --pretrained`), a run's
            folder, a .keras file or a weight file; if its number of classes differs, the classifier is initialized
            from scratch.
    """

    name: str
    method: MethodName
    options: Tables = Field(default_factory=dict)
    activations: str | None = None
    kernels: str | None = None
    scale: Literal["none", "mean_abs", "learned"] | None = None
    scale_scope: Literal["filter", "layer"] | None = None
    penalty: NotNegative | None = None
    initializer: Literal["glorot_uniform", "he_normal"] | None = None
    weights: str | None = None


class Distillation(TomlTable):
    """`[stage.distillation]`: the softened outputs of a teacher as a second target, see `kbnn.training.Learner`."""

    teacher: str
    share: float = Field(0.5, gt=0, le=1)
    temperature: Positive = 1.0


def _learns_labels(stage: "Stage") -> bool:
    return stage.distillation is None or stage.distillation.share < 1


def _within(name: str) -> OnlyIf:
    """Marks epochs of a stage, which must not lie beyond its end."""

    def lies_within(stage: "Stage") -> bool:
        epochs = getattr(stage, name)
        return max(epochs if isinstance(epochs, tuple) else (epochs,), default=0) <= stage.epochs

    return OnlyIf(lies_within, "a stage of at least as many epochs")


_OF_KERNELS = OnlyIf(
    lambda stage: stage.train == "all" and stage.kernels == "binary",
    "binary kernels that are trained (kernels 'binary', train 'all')",
)


class Stage(TomlTable):
    """`[[stage]]`: a number of epochs with one optimizer and one schedule.

    Args:
        epochs: length of the stage.
        start: the weights to start from: "last", those after the previous stage's last epoch, or "best", those of its
            epoch with the best validation accuracy.
        method: replaces the model's method, for example "float" for real-valued pre-training.
        options: options of the architecture, in addition to the model's.
        kernels: "real" leaves kernels real-valued while activations are signs (ReActNet's first stage).
        train: "all", or "batch_norm" to train only batch normalization, with kernels fixed at ±1 (Bi-Real Net's last
            stage).
        optimizer: "sgd" with momentum, or "adam".
        learning_rate: highest learning rate.
        momentum: momentum of "sgd".
        schedule: "constant"; "cosine" or "linear" to 0 at the end; "steps": times `factor` at each of `boundaries`.
        boundaries: epochs at which "steps" lowers the learning rate, none after the stage's last.
        factor: see `schedule`.
        warmup: epochs in which the learning rate rises linearly, before its schedule starts.
        weight_decay: λ of the penalty λ/2·Σw².
        decay: the weights with a penalty: "real" (all except those of binarized layers), "all", or "convolutions" (only
            kernels of convolutions, including binarized ones).
        label_smoothing: share of the target that is spread over all classes.
        penalty_warmup: epochs in which the method's penalty rises linearly to its strength.
        quantizers: settings of the quantizers' schedules, see their `schedule` methods:
            `{ ede = [1e-3, 10.0], beta = [5.0, 10.0], percentile = 15.0 }`.
        patience: stop after this many epochs without a better validation accuracy.
        distillation: a teacher.
    """

    epochs: int = Field(ge=1)
    start: Literal["last", "best"] = "last"
    method: MethodName | None = None
    options: Tables = Field(default_factory=dict)
    kernels: Literal["binary", "real"] = "binary"
    train: Literal["all", "batch_norm"] = "all"
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 5e-3
    momentum: Annotated[Share, OnlyIf(lambda stage: stage.optimizer == "sgd", "optimizer 'sgd'")] = 0.9
    schedule: Literal["constant", "cosine", "linear", "steps"] = "cosine"
    boundaries: Annotated[tuple[Annotated[int, Field(ge=1)], ...], IN_EPOCHS, _within("boundaries")] = Field(
        (), strict=False
    )
    factor: Annotated[Positive, OnlyIf(lambda stage: stage.schedule == "steps", "schedule 'steps'")] = 0.1
    warmup: Annotated[int, IN_EPOCHS, _within("warmup")] = Field(0, ge=0)
    weight_decay: NotNegative = 0.0
    decay: Annotated[
        Literal["real", "all", "convolutions"], OnlyIf(lambda stage: stage.weight_decay > 0, "weight_decay")
    ] = "real"
    label_smoothing: Annotated[Share, OnlyIf(_learns_labels, "distillation.share below 1")] = 0.0
    penalty_warmup: Annotated[int, IN_EPOCHS, _within("penalty_warmup"), _OF_KERNELS] = Field(0, ge=0)
    quantizers: Tables = Field(default_factory=dict)
    patience: int | None = Field(None, ge=1)
    distillation: Distillation | None = None

    @model_validator(mode="before")
    @classmethod
    def _former_keys(cls, values: object) -> object:
        """Converts the keys that `decay` and `quantizers` replaced, so that runs of version 0.1 can be resumed."""
        if not isinstance(values, Mapping):
            return values
        current = dict(values)
        if current.pop("decay_binarized", False) and current.get("weight_decay"):
            current["decay"] = "all"
        former = {key: current.pop(key) for key in _FORMER_DEFAULTS if key in current}
        settings = {key: value for key, value in former.items() if value != _FORMER_DEFAULTS[key]}
        if settings:
            current["quantizers"] = {**settings, **current.get("quantizers", {})}
        return current

    @model_validator(mode="after")
    def _steps_have_boundaries(self) -> "Stage":
        if (self.schedule == "steps") != bool(self.boundaries):
            raise ValueError("schedule 'steps' and boundaries need each other: give both, or neither")
        return self

    @model_validator(mode="after")
    def _quantizers_have_settings_of_their_own(self) -> "Stage":
        reserved = sorted(_PASSED_BY_THE_STAGE & set(self.quantizers))
        if reserved:
            raise ValueError(
                f"quantizers sets what follows from the stage: received '{reserved[0]}', remove it or change the "
                f"stage's epochs"
            )
        return self

    def shortened(self, epochs: int) -> "Stage":
        """The stage with another number of epochs; all fields that count epochs change in proportion."""
        share = epochs / self.epochs
        counting = [name for name, field in type(self).model_fields.items() if IN_EPOCHS in field.metadata]
        scaled = {name: _scaled(getattr(self, name), share) for name in counting}
        return self.model_copy(update={"epochs": epochs, **scaled})


# Defaults of version 0.1, which wrote them into every run.
_FORMER_DEFAULTS: Tables = {"ede": [1e-3, 10.0], "beta": None, "percentile": 15.0}


def _scaled(epochs: int | tuple[int, ...], share: float) -> int | tuple[int, ...]:
    if isinstance(epochs, tuple):
        return tuple(max(1, round(share * epoch)) for epoch in epochs)
    return round(share * epochs)


class Recipe(TomlTable):
    """A whole recipe.

    Args:
        name: the name, also of the run's folder; GRID/VARIANT for a variant of a grid.
        source: a description of the table row that the recipe reproduces.
        table: names of the tables with this row.
        paper: top-1 accuracy printed there, in percent.
        paper_top5: top-5 accuracy printed there, in percent.
        seed: seed of weights, order and augmentation.
        policy: mixed-precision policy; by default Keras's global one.
        steps_per_execution: training steps in one call of the compiled function.
        data: see `DataSettings`.
        model: see `ModelSettings`.
        stage: one or more `Stage`s, in order.
    """

    name: str
    source: str | None = None
    table: tuple[str, ...] = Field((), strict=False)
    paper: float | None = None
    paper_top5: float | None = None
    # The range that all random generators of TensorFlow and NumPy accept.
    seed: int = Field(0, ge=0, lt=2**31)
    policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] | None = None
    steps_per_execution: int = Field(8, ge=1)
    data: DataSettings = Field(default_factory=lambda: DataSettings.model_validate({}))
    model: ModelSettings
    stage: tuple[Stage, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _first_stage_follows_none(self) -> "Recipe":
        if self.stage[0].start != "last":
            raise ValueError(
                f"the first stage has none to start from: received start='{self.stage[0].start}', remove it"
            )
        return self

    @model_validator(mode="after")
    def _name_is_a_folder(self) -> "Recipe":
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name '{self.name}' cannot be the name of a run's folder: received one that is empty or absolute, or "
                f"contains '..', a backslash or a control character; use letters, digits, '-', '_', '+' and '.'"
            )
        return self

    @staticmethod
    def of(
        model: str,
        method: "str | Method | None" = None,
        dataset: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        size: int | None = None,
        epochs: int = 60,
        batch: int | None = None,
        seed: int = 0,
        weights: str | os.PathLike[str] | None = None,
        **options: object,
    ) -> "Recipe":
        """A recipe with common defaults: Adam with a cosine schedule to 0, random crops and flips.

        Images of equal size are shifted by up to four pixels and mirrored, as is usual for CIFAR; digits are not
        mirrored, and the 8x8 digits are shifted by one pixel. Images of different sizes are cropped as is usual for
        ImageNet. Without a data set and a folder, pass `data` to `train`.

        Args:
            model: an architecture.
            method: the binarization method: a name, or a `kbnn.methods.Method`, which is recorded by its name. By
                default the method of the weights, or else "bireal".
            dataset: name of a data set.
            folder: instead of a data set, a folder of images with one sub-folder per class.
            size: height and width of the network's input, for images of different sizes; by default that of the
                weights, if they record it, or else 224.
            epochs: number of epochs.
            batch: images per step; 128 by default, fewer for small folders.
            seed: seed of weights, order and augmentation.
            weights: trained weights to start from, see `ModelSettings`. Weights that ship and runs also define the
                method and the options.
            **options: options of the architecture.

        Raises:
            UsageError: a value is out of range, the method is not registered, or the weights are of another network.

        Example:
            >>> kbnn.training.Recipe.of("resnet20", weights="cifar10", folder="photos")
        """
        start, method, options = _starting(model, method, options, weights)
        if size is None and folder is not None and weights is not None:
            size = _size_of(model, weights, str(_method_name(method)))
        known = str(_method_name(method))
        return Recipe.parse(
            {
                "name": "-".join(part for part in (model, known, dataset or _last_part(folder)) if part),
                "seed": seed,
                "data": {
                    **_source(dataset, folder),
                    **_augmentation(dataset, folder, size),
                    **({"batch": batch or BATCH} if batch or dataset else {}),
                },
                "model": {"name": model, "method": known, "options": options, **start},
                "stage": [{"epochs": epochs}],
            }
        )

    @staticmethod
    def parse(values: Mapping[str, object]) -> "Recipe":
        """A recipe from plain tables.

        Raises:
            UsageError: a key is unknown (close ones are suggested), missing, or has a wrong type or value.
        """
        return parse(Recipe, values)

    @staticmethod
    def read(path: str | os.PathLike[str], *, recorded: bool = False) -> "Recipe":
        """A recipe from a TOML file.

        Args:
            path: the file.
            recorded: whether it is the recipe of a run. Settings without an effect, which earlier versions accepted,
                are then no error.

        Raises:
            UsageError: the file is missing, not TOML, or not a recipe.
        """
        return parse(Recipe, read_toml(path), _RECORDED if recorded else None)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as TOML, atomically."""
        files.write(path, tomli_w.dumps(self.tables()))

    def tables(self) -> Tables:
        """The recipe as plain tables, without the keys that are None."""
        return self.model_dump(mode="json", exclude_none=True)

    def changed(self, settings: Mapping[str, object]) -> "Recipe":
        """The recipe with some settings changed, each given by its dotted key; stages count from 1.

        Raises:
            UsageError: as for `parse`, or the recipe has no such stage.

        Example:
            >>> recipe.changed({"stage.1.epochs": 30, "data.batch": 64})
        """
        if not settings:
            return self
        tables = self.tables()
        for key, value in settings.items():
            _set(tables, key, value)
        return Recipe.parse(tables)

    def on(
        self,
        dataset: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        size: int | None = None,
    ) -> "Recipe":
        """The recipe for other images, or for its own images at another size, augmented as in `of`.

        For a folder, the batch size is chosen again: the recipe's may be larger than the whole folder.
        """
        feeding = self.data.feeding()
        if folder is not None:
            feeding["batch"] = None
        if dataset is None and folder is None:
            dataset, folder = self.data.name, self.data.folder
        if folder is None:
            feeding = {key: value for key, value in feeding.items() if key not in _READING}
        data = {**feeding, **_source(dataset, folder), **_augmentation(dataset, folder, size)}
        return Recipe.parse({**self.tables(), "data": data})

    def shortened(self, epochs: int | None) -> "Recipe":
        """The recipe with a total of `epochs`, divided among its stages in proportion; schedules shrink accordingly.

        Raises:
            UsageError: fewer epochs than stages.
        """
        if epochs is None or epochs == self.epochs:
            return self
        if epochs < len(self.stage):
            raise UsageError(
                f"recipe '{self.name}' has {len(self.stage)} stages: received {epochs} epochs, give at least one each"
            )
        left, planned, stages = epochs, self.epochs, []
        for place, stage in enumerate(self.stage):
            following = len(self.stage) - place - 1
            count = min(max(1, round(left * stage.epochs / planned)), left - following)
            stages.append(stage.shortened(count))
            left, planned = left - count, planned - stage.epochs
        return self.model_copy(update={"stage": tuple(stages)})

    def without_figures(self) -> "Recipe":
        """The recipe without the fields that do not affect training: the paper's figures and their source."""
        return self.model_copy(update={"source": None, "table": (), "paper": None, "paper_top5": None})

    def with_absolute_paths(self) -> "Recipe":
        """The recipe with absolute paths, so that a run can be resumed from any folder."""
        located = self._with_paths(lambda path: str(Path(path).absolute()))
        start = self.model.weights
        if start is None or not Path(start).exists() or pretrained.find(self.model.name, start) is not None:
            return located
        model = self.model.model_copy(update={"weights": str(Path(start).absolute())})
        return located.model_copy(update={"model": model})

    def at_the_places_of(self, other: "Recipe") -> "Recipe":
        """The recipe with the paths of another one, where both read a folder of images or have a teacher.

        A teacher's file or folder must have the same name there; the images may be in a folder of any name.
        """
        moved = [
            (mine.distillation.teacher, theirs.distillation.teacher)
            for mine, theirs in zip(self.stage, other.stage, strict=False)
            if mine.distillation is not None and theirs.distillation is not None
        ]
        known = {mine: theirs for mine, theirs in moved if Path(mine).name == Path(theirs).name}
        if self.data.folder is not None and other.data.folder is not None:
            known[self.data.folder] = other.data.folder
        return self._with_paths(lambda path: known.get(path, path))

    def _with_paths(self, moved: Callable[[str], str]) -> "Recipe":
        folder = self.data.folder
        data = self.data if folder is None else self.data.model_copy(update={"folder": moved(folder)})
        stages = tuple(
            stage
            if stage.distillation is None
            else stage.model_copy(
                update={
                    "distillation": stage.distillation.model_copy(update={"teacher": moved(stage.distillation.teacher)})
                }
            )
            for stage in self.stage
        )
        return self.model_copy(update={"data": data, "stage": stages})

    def settings(self) -> Tables:
        """Every setting by its dotted key; stages count from 1."""
        return dict(_flat(self.tables()))

    def differences(self, other: "Recipe") -> list[str]:
        """The settings that differ in another recipe, as `key: this -> other`."""
        mine, theirs = self.settings(), other.settings()
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [f"{key}: {mine.get(key)} -> {theirs.get(key)}" for key in keys if mine.get(key) != theirs.get(key)]

    @property
    def epochs(self) -> int:
        """The total number of epochs of all stages."""
        return sum(stage.epochs for stage in self.stage)


def read_toml(path: str | os.PathLike[str]) -> Tables:
    """The tables of a TOML file.

    Raises:
        UsageError: the file is missing or not TOML.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} bytes")
        # Some editors begin UTF-8 files with a byte order mark, which TOML does not allow.
        return tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        # Besides its own error, the parser raises others for numbers of thousands of digits and for deep nesting.
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read recipe '{path}': {reason}; give the TOML file of a recipe") from error


def parse_value(text: str) -> object:
    """Parses a setting from the command line: a TOML value, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _last_part(folder: str | os.PathLike[str] | None) -> str | None:
    return Path(folder).resolve().name if folder else None


def _source(dataset: str | None, folder: str | os.PathLike[str] | None) -> dict[str, str]:
    named = {"name": dataset} if dataset else {}
    # Absolute, so that a run can be resumed from any folder.
    return {**named, "folder": str(Path(folder).absolute())} if folder else named


def _starting(
    model: str, method: "str | Method | None", options: Tables, weights: str | os.PathLike[str] | None
) -> "tuple[dict[str, str], str | Method, Tables]":
    """The recipe's setting of the weights to start from, and the method and the options of the network."""
    if weights is None:
        return {}, method or METHOD, options
    origin, where = source_of(model, weights, None if method is None else str(_method_name(method)))
    if origin is not None and origin.name != model:
        raise UsageError(f"weights '{weights}' are for {origin.name}: received model '{model}', give {origin.name}")
    if origin is None:
        return {"weights": where}, method or METHOD, options
    return {"weights": where}, method or origin.method, {**origin.options, **options}


def source_of(
    model: str | None, weights: str | os.PathLike[str], method: str | None = None
) -> tuple[ModelSettings | None, str]:
    """The network that weights belong to (None if a file does not record it), and their name or path.

    Raises:
        UsageError: there are no such weights.
    """
    shipped = pretrained.find(model, os.fspath(weights), method)
    if shipped is not None:
        settings = {"name": shipped.network, "method": shipped.method, "options": dict(shipped.options)}
        return ModelSettings.model_validate(settings), shipped.name
    path = Path(weights)
    if not path.exists():
        raise pretrained.no_such(model, os.fspath(weights))
    config = path / "config.toml"
    # Absolute, so that a run can be resumed from any folder.
    return (Recipe.read(config, recorded=True).model if config.is_file() else None), str(path.absolute())


def _size_of(model: str, weights: str | os.PathLike[str], method: str) -> int | None:
    """The height and width of the images that weights were trained on; None for weights without their model."""
    shipped = pretrained.find(model, os.fspath(weights), method)
    if shipped is not None:
        return shipped.input_shape[0]
    config = Path(weights) / "config.toml"
    size = Recipe.read(config, recorded=True).data.size if config.is_file() else None
    if size is not None:
        return size
    from kbnn.weights import load_source

    shape = getattr(load_source(weights), "input_shape", None)
    return shape[1] if isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] else None


def _augmentation(dataset: str | None, folder: str | os.PathLike[str] | None, size: int | None) -> Tables:
    if dataset is None and folder is None and size is None:
        # Data that is passed to `train` is not known yet.
        return {}
    if dataset == "digits" and size is None:
        return {"pad": 1}
    flip = dataset not in ("digits", "svhn_cropped")
    if size is None and dataset not in (None, "imagenet2012", "imagenette"):
        return {"pad": 4, "flip": flip}
    side = size or 224
    return {"resize": round(side * 8 / 7), "size": side, "flip": flip}


def _set(tables: Tables, key: str, value: object) -> None:
    *path, last = key.split(".")
    table: object = tables
    for part in path:
        table = _step(table, part, key)
    if not isinstance(table, dict):
        raise _no_key(key)
    table[last] = copy.deepcopy(value)


def _step(table: object, part: str, key: str) -> object:
    if isinstance(table, list):
        if not part.isdigit() or not 1 <= int(part) <= len(table):
            raise UsageError(f"cannot set '{key}': received stage '{part}', but the stages are 1 to {len(table)}")
        return table[int(part) - 1]
    if not isinstance(table, dict):
        raise _no_key(key)
    return table.setdefault(part, {})


def _no_key(key: str) -> UsageError:
    return UsageError(f"cannot set '{key}': it is not a key of a recipe, such as stage.1.epochs or data.batch")


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [(str(index), item) for index, item in enumerate(value, start=1)]
    else:
        yield prefix, value
        return
    for key, item in items:
        yield from _flat(item, f"{prefix}.{key}" if prefix else key)


Kind = TypeVar("Kind", bound=TomlTable)


def parse(kind: type[Kind], values: Mapping[str, object], context: object = None) -> Kind:
    """Validates plain tables as a recipe or a grid.

    Raises:
        UsageError: a key is unknown (close ones are suggested), missing, or has a wrong type or value.
    """
    try:
        return kind.model_validate(values, context=context)
    except ValidationError as error:
        raise UsageError(_explain(kind, error)) from error


def _explain(kind: type[TomlTable], error: ValidationError) -> str:
    # A misspelt key also makes the right key missing: report the misspelling.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place, wrong, reason = first["loc"], first["type"], first["msg"].removeprefix("Value error, ")
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in place)
    if wrong == "extra_forbidden":
        known = _table(kind, [part for part in place[:-1] if isinstance(part, str)]).model_fields
        near = difflib.get_close_matches(str(place[-1]), known, n=2, cutoff=0.5)
        offer = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"
        return f"unknown key of a recipe: received '{key}'; {offer}"
    if wrong == "missing":
        return f"key '{key}' of the recipe is missing: {reason.lower()}"
    received = "" if isinstance(first["input"], dict) else f"received {first['input']!r}; "
    of_key = f"key '{key}' of the recipe: {received}" if key else ""
    return f"{of_key}{reason[:1].lower()}{reason[1:]}"


def _table(kind: type[TomlTable], path: list[str]) -> type[TomlTable]:
    """The type of a nested table."""
    for key in path:
        kind = next(_tables_in(kind.model_fields[key].annotation))
    return kind


def _tables_in(annotation: object) -> Iterator[type[TomlTable]]:
    if isinstance(annotation, type) and issubclass(annotation, TomlTable):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _tables_in(argument)
