"""A recipe: everything that decides a training run, typed, as one TOML file."""

import copy
import difflib
import os
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kbnn import files
from kbnn.errors import UsageError

if TYPE_CHECKING:
    from kbnn.methods import Method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _method_name(method: Any) -> Any:
    """A `kbnn.methods.Method` by its name; anything else as it is."""
    if isinstance(method, str | None):
        return method
    from kbnn.methods import Method, name_of

    return name_of(method) if isinstance(method, Method) else method


MethodName = Annotated[str, BeforeValidator(_method_name)]


class Settings(BaseModel):
    """A table of a recipe; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSettings(Settings):
    """`[data]`: which images, and how they are fed; see `kbnn.datasets.Transform` for what happens to them."""

    name: str | None = None
    folder: str | None = None
    unreadable: Literal["refuse", "skip"] = "refuse"
    max_bytes: int | None = Field(None, ge=1)
    max_pixels: int | None = Field(None, ge=1)
    validation: Share = 0.1
    batch: int = Field(128, ge=1)
    pad: int = Field(0, ge=0)
    flip: bool = False
    resize: int | None = Field(None, ge=1)
    square: bool = False
    size: int | None = Field(None, ge=1)
    scale: tuple[Share, Positive] | None = Field(None, strict=False)

    @model_validator(mode="after")
    def _one_source(self) -> "DataSettings":
        if (self.name is None) == (self.folder is None):
            raise ValueError("give either name, of a known data set, or folder, of your own images")
        return self


class ModelSettings(Settings):
    """`[model]`: the architecture, the method, the architecture's options, and weights to start from.

    `activations`, `kernels`, `scale`, `scale_scope` and `penalty` (λ) replace the method's own, as in the papers'
    ablations; see `kbnn.training.networks`. `initializer` is drawn from by every kernel anew. `weights` is a run's
    folder, a .keras file or a file of weights; a classifier for other classes starts anew.
    """

    name: str
    method: MethodName
    options: dict[str, Any] = Field(default_factory=dict)
    activations: str | None = None
    kernels: str | None = None
    scale: Literal["none", "mean_abs", "learned"] | None = None
    scale_scope: Literal["filter", "layer"] | None = None
    penalty: NotNegative | None = None
    initializer: Literal["glorot_uniform", "he_normal"] | None = None
    weights: str | None = None


class Distillation(Settings):
    """`[stage.distillation]`: a teacher's softened outputs as a second target.

    Loss: (1 - share)·cross-entropy + share·T²·KL(softmax(teacher/T), softmax(student/T)).
    """

    teacher: str
    share: float = Field(0.5, gt=0, le=1)
    temperature: Positive = 1.0


class Stage(Settings):
    """`[[stage]]`: epochs under one optimizer and one schedule.

    Args:
        epochs: how long.
        method: in the place of the model's, such as "float" for real-valued pre-training.
        options: of the architecture, in the place of the model's.
        kernels: "real" leaves kernels as they are while activations are signs (ReActNet's first stage).
        train: "all", or "batch_norm" alone, with kernels that are ±1 from then on (Bi-Real Net's last stage).
        optimizer: "sgd" with momentum, or "adam".
        learning_rate: the largest one.
        momentum: of "sgd".
        schedule: "constant"; "cosine" or "linear" to 0 at the end; "steps": times `factor` at each of `boundaries`.
        boundaries: epochs.
        factor: see `schedule`.
        warmup: epochs in which the learning rate rises linearly, before its schedule starts.
        weight_decay: λ of the penalty λ/2·Σw² on every trained weight but binarized kernels.
        decay_binarized: binarized kernels, too.
        label_smoothing: share of the target that is spread over all classes.
        penalty_warmup: epochs in which the method's penalty rises linearly to its strength.
        ede: Tmin and Tmax of IR-Net's estimator.
        beta: first and last β of SignSwish estimators that are not trained.
        percentile: first percentile of SiMaN's clamp, which falls to 0.
        patience: stop after so many epochs without a better validation accuracy.
        distillation: a teacher.
    """

    epochs: int = Field(ge=1)
    method: MethodName | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    kernels: Literal["binary", "real"] = "binary"
    train: Literal["all", "batch_norm"] = "all"
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 5e-3
    momentum: Share = 0.9
    schedule: Literal["constant", "cosine", "linear", "steps"] = "cosine"
    boundaries: tuple[Annotated[int, Field(ge=1)], ...] = Field((), strict=False)
    factor: Positive = 0.1
    warmup: int = Field(0, ge=0)
    weight_decay: NotNegative = 0.0
    decay_binarized: bool = False
    label_smoothing: Share = 0.0
    penalty_warmup: int = Field(0, ge=0)
    ede: tuple[Positive, Positive] = Field((1e-3, 10.0), strict=False)
    beta: tuple[Positive, Positive] | None = Field(None, strict=False)
    percentile: float = Field(15.0, ge=0, lt=50)
    patience: int | None = Field(None, ge=1)
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _steps_have_boundaries(self) -> "Stage":
        if (self.schedule == "steps") != bool(self.boundaries):
            raise ValueError("schedule 'steps' and boundaries go together: give both, or neither")
        return self

    def shortened(self, epochs: int) -> "Stage":
        """The stage in another number of epochs, its boundaries and warm-ups in proportion."""
        share = epochs / self.epochs
        scaled = {"epochs": epochs, "boundaries": tuple(max(1, round(share * epoch)) for epoch in self.boundaries)}
        warmups = {name: round(share * getattr(self, name)) for name in ("warmup", "penalty_warmup")}
        return self.model_copy(update={**scaled, **warmups})


class Recipe(Settings):
    """A whole recipe.

    `source`, `table` and `paper` say which row of which paper it is, of which tables by name, and its top-1 there in
    percent. `policy` is the mixed-precision policy; Keras's global one when not given.
    """

    name: str
    source: str | None = None
    table: tuple[str, ...] = Field((), strict=False)
    paper: float | None = None
    # As many as the random generators of TensorFlow and NumPy all take.
    seed: int = Field(0, ge=0, lt=2**31)
    policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] | None = None
    steps_per_execution: int = Field(8, ge=1)
    data: DataSettings
    model: ModelSettings
    stage: tuple[Stage, ...] = Field(min_length=1, strict=False)

    @staticmethod
    def of(
        model: str,
        method: "str | Method",
        dataset: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        size: int | None = None,
        epochs: int = 60,
        batch: int = 128,
        seed: int = 0,
        **options: Any,
    ) -> "Recipe":
        """A recipe with common defaults: Adam, its learning rate falling to 0 along a cosine, random crops and flips.

        Images of one size are shifted by up to four pixels and mirrored, as is usual for CIFAR, but digits are not
        mirrored, and small ones shifted by one pixel; images of differing sizes are cropped as is usual for ImageNet.

        Args:
            model: an architecture.
            method: what makes it binary: a name, or a `kbnn.methods.Method`, which is recorded by its name.
            dataset: a data set by name, or
            folder: a folder of images, one sub-folder per class.
            size: side of the square that the network sees, for images of differing sizes.
            epochs: how long.
            batch: images of a step.
            seed: of weights, order and augmentation.
            **options: the architecture's own.

        Raises:
            UsageError: a value is out of range.
        """
        return Recipe.parse(
            {
                "name": f"{model}-{_method_name(method)}-{dataset or Path(folder or '').name}",
                "seed": seed,
                "data": {"batch": batch, **_source(dataset, folder), **_augmentation(dataset, size)},
                "model": {"name": model, "method": method, "options": options},
                "stage": [{"epochs": epochs}],
            }
        )

    @staticmethod
    def parse(values: Mapping[str, Any]) -> "Recipe":
        """A recipe from plain tables.

        Raises:
            UsageError: a key is unknown (near ones are offered), missing, or has a wrong type or value.
        """
        return parse(Recipe, values)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "Recipe":
        """A recipe from a TOML file.

        Raises:
            UsageError: the file is missing, not TOML, or not a recipe.
        """
        return Recipe.parse(read_toml(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as TOML, by rename."""
        files.write(path, tomli_w.dumps(self.tables()))

    def tables(self) -> dict[str, Any]:
        """The recipe as plain tables; what is not set is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def changed(self, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe with other settings, each by its dotted key; stages count from 1.

        Raises:
            UsageError: as `parse`, or a stage that the recipe does not have.

        Example:
            >>> recipe.changed({"stage.1.epochs": 30, "data.batch": 64})
        """
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
        """The recipe on other images, or its own at another size, augmented as `of` does; see there."""
        if dataset is None and folder is None:
            dataset, folder = self.data.name, self.data.folder
        kept = self.data.model_dump(include={"batch", "validation", "unreadable"})
        data = {**kept, **_source(dataset, folder), **_augmentation(dataset, size)}
        return Recipe.parse({**self.tables(), "data": data})

    def differences(self, other: "Recipe") -> list[str]:
        """What another recipe has changed, as `key: this -> other`."""
        mine, theirs = dict(_flat(self.tables())), dict(_flat(other.tables()))
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [f"{key}: {mine.get(key)} -> {theirs.get(key)}" for key in keys if mine.get(key) != theirs.get(key)]

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stage)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UsageError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read recipe '{path}': {reason}; give a TOML file of a recipe") from error


def parse_value(text: str) -> Any:
    """A setting from the command line: a TOML value, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _source(dataset: str | None, folder: str | os.PathLike[str] | None) -> dict[str, str]:
    named = {"name": dataset} if dataset else {}
    # Absolute, so that a run goes on from any folder.
    return {**named, "folder": str(Path(folder).absolute())} if folder else named


def _augmentation(dataset: str | None, size: int | None) -> dict[str, Any]:
    if dataset == "digits" and size is None:
        return {"pad": 1}
    flip = dataset not in ("digits", "svhn_cropped")
    if size is None and dataset not in (None, "imagenet2012", "imagenette"):
        return {"pad": 4, "flip": flip}
    side = size or 224
    return {"resize": round(side * 8 / 7), "size": side, "flip": flip}


def _set(tables: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    table: Any = tables
    for part in path:
        table = _step(table, part, key)
    if not isinstance(table, dict):
        raise _no_key(key)
    table[last] = copy.deepcopy(value)


def _step(table: Any, part: str, key: str) -> Any:
    if isinstance(table, list):
        if not part.isdigit() or not 1 <= int(part) <= len(table):
            raise UsageError(f"cannot set '{key}': received stage '{part}', the recipe has stages 1 to {len(table)}")
        return table[int(part) - 1]
    if not isinstance(table, dict):
        raise _no_key(key)
    return table.setdefault(part, {})


def _no_key(key: str) -> UsageError:
    return UsageError(f"cannot set '{key}': it names no key of a recipe, such as stage.1.epochs or data.batch")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [(str(index), item) for index, item in enumerate(value, start=1)]
    else:
        yield prefix, value
        return
    for key, item in items:
        yield from _flat(item, f"{prefix}.{key}" if prefix else key)


Kind = TypeVar("Kind", bound=Settings)


def parse(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Settings from plain tables.

    Raises:
        UsageError: a key is unknown (near ones are offered), missing, or has a wrong type or value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(kind, error)) from error


def _explain(kind: type[Settings], error: ValidationError) -> str:
    # A key that is misspelt may also be missing: the misspelling says more.
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


def _table(kind: type[Settings], path: list[str]) -> type[Settings]:
    """The settings that a table inside of others holds."""
    for key in path:
        kind = next(_settings_in(kind.model_fields[key].annotation))
    return kind


def _settings_in(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _settings_in(argument)
