"""Builds the network of a stage, from whichever installed package registers its name."""

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import tensorflow as tf

from kbnn import methods, quantizers, structure, weights
from kbnn.datasets import Dataset
from kbnn.errors import UsageError
from kbnn.layers.binarized import Binarized
from kbnn.methods import Method
from kbnn.precision import precision
from kbnn.training.catalog import GROUP
from kbnn.training.recipe import ModelSettings, Recipe, Stage, source_of


def network(
    recipe: Recipe,
    stage: Stage,
    data: Dataset,
    previous: tf.keras.Model | None = None,
    *,
    is_restored: bool = False,
) -> tf.keras.Model:
    """A stage's network for a data set.

    Args:
        recipe: the recipe.
        stage: one of its stages.
        data: the data set, which determines the input shape and the number of classes.
        previous: the network of the previous stage, whose weights initialize the layers of the same names.
        is_restored: whether a checkpoint will replace all weights, so that the recipe's weights are not needed.

    Raises:
        UsageError: an unknown architecture, method, option or quantizer, or weights that do not fit.
    """
    settings = recipe.model
    with precision(recipe.policy), _random_state_in_variables():
        model = build(
            settings.name,
            method(settings, stage),
            input_shape=data.input_shape,
            classes=len(data.classes),
            **{**settings.options, **stage.options},
        )
    structure.check_single(model)
    if settings.initializer is not None:
        initialize(model, settings.initializer)
    if previous is not None:
        weights.transfer(previous, model)
    elif settings.weights is not None and not is_restored:
        weights.start(model, settings.weights)
    return model


def build(name: str, method: str | Method | None, **kwargs: object) -> tf.keras.Model:
    """Builds a registered network; see `kbnn.models.build` for the arguments."""
    return _package().build(name, method, **kwargs)


def options_of(name: str) -> dict[str, object]:
    """The options of an architecture with their defaults."""
    options: dict[str, object] = _package().get(name).options()
    return options


def check(recipe: Recipe, *, is_new: bool = True) -> None:
    """Checks everything about the network that does not depend on the data, before these are loaded.

    Args:
        recipe: the recipe.
        is_new: whether the run has not started yet: settings without an effect, with which earlier versions started
            runs, are refused, and so are weights and teachers that do not exist. A run that is resumed may not need
            them any more.

    Raises:
        UsageError: an unknown architecture, method, quantizer or option, a transform that cannot work, weights or a
            teacher that do not exist, or settings without an effect.
    """
    settings = recipe.model
    architecture = _package().get(settings.name)
    built = [method(settings, stage) for stage in recipe.stage]
    for stage, chosen in zip(recipe.stage, built, strict=True):
        architecture.check(chosen, {**settings.options, **stage.options})
    recipe.data.transform()
    if not is_new:
        return
    for stage in recipe.stage:
        if stage.distillation is not None:
            check_teacher_exists(stage.distillation.teacher)
    if settings.weights is not None:
        source_of(settings.name, settings.weights)
    _check_effects(recipe, built)


def check_teacher_exists(path: str) -> None:
    """Raises UsageError unless there is a file or a folder at the path of a teacher."""
    if not Path(path).exists():
        raise UsageError(f"no teacher at '{path}': give a run or a .keras file")


def _check_effects(recipe: Recipe, built: Sequence[Method]) -> None:
    """Raises UsageError for a setting that affects the method of no stage, or not that of its own stage."""
    settings, stages = recipe.model, list(zip(recipe.stage, built, strict=True))
    method = f"method '{settings.method}'"
    binary = [stage for stage, found in stages if found.is_binary]
    quantized = [stage for stage in binary if stage.kernels == "binary"]
    replaceable = [stage for stage in binary if not {**settings.options, **stage.options}.get("estimator")]
    penalized = [stage for stage, found in stages if found.penalties]
    # Another scale may replace a learned one with its penalty, as in a grid over scales.
    named = [stage for stage in recipe.stage if methods.get(stage.method or settings.method).penalties]
    scaled = [stage for stage, found in stages if found.scale]
    no_kernels, no_signs = f"{method} has no binary kernels", f"{method} has no signs of activations"
    _require_effect("model.kernels", settings.kernels, quantized, no_kernels, "give a binary method")
    _require_effect("model.scale", settings.scale, quantized, no_kernels, "give a binary method")
    _require_effect("model.activations", settings.activations, binary, no_signs, "give a binary method")
    overridden = "the option 'estimator' of the network replaces the sign"
    _require_effect("model.activations", settings.activations, replaceable, overridden, "change the option")
    with_penalty = "add '+ml' to the method"
    _require_effect("model.penalty", settings.penalty, named, f"{method} has no penalty", with_penalty)
    no_scale = f"{method} has no scale of the output"
    _require_effect("model.scale_scope", settings.scale_scope, scaled, no_scale, "give model.scale")
    for number, (stage, found) in enumerate(stages, start=1):
        own = [stage] if stage in penalized else []
        real = "real" if stage.kernels == "real" else None
        no_signs_here = f"method '{stage.method or settings.method}' has no signs of activations"
        where = [stage] if found.is_binary else []
        _require_effect(f"stage.{number}.kernels", real, where, no_signs_here, "give a binary method")
        no_penalty = f"method '{stage.method or settings.method}' has no penalty"
        _require_effect(f"stage.{number}.penalty_warmup", stage.penalty_warmup or None, own, no_penalty, with_penalty)


def _require_effect(key: str, value: object, where: Sequence[Stage], reason: str, remedy: str) -> None:
    """Raises UsageError if a setting is given, but has no effect in any stage."""
    if value is not None and not where:
        raise UsageError(f"{reason}: received {key}={value!r}, remove it or {remedy}")


def _package() -> ModuleType:
    """The package with the registry of architectures."""
    loaded: Iterator[ModuleType] = (entry.load() for entry in importlib.metadata.entry_points(group=GROUP, name="kbnn"))
    package = next(loaded, None)
    if package is None:
        raise RuntimeError(f"no installed package registers '{GROUP}'")
    return package


def method(settings: ModelSettings, stage: Stage) -> Method:
    """The method of a stage: the recipe's, with the parts that the recipe or the stage replaces.

    Raises:
        UsageError: an unknown method or quantizer; close names are suggested.
    """
    result = methods.get(stage.method or settings.method)
    activations, kernels = result.input_quantizer, result.kernel_quantizer
    if settings.activations is not None:
        activations = quantizers.find(settings.activations, "activation", "activations")
    if settings.kernels is not None:
        kernels = quantizers.find(settings.kernels, "kernel", "kernels")
    if not result.is_binary:
        return result
    result = dataclasses.replace(result, input_quantizer=activations, kernel_quantizer=kernels)
    if settings.scale is not None:
        scale = None if settings.scale == "none" else settings.scale
        penalty = result.scale_regularizer if scale == "learned" else None
        result = dataclasses.replace(result, scale=scale, scale_regularizer=penalty)
    if settings.scale_scope is not None:
        result = dataclasses.replace(result, scale_scope=settings.scale_scope)
    if settings.penalty is not None:
        for penalty in result.penalties:
            penalty.strength.assign(settings.penalty)
    return result.with_real_kernels() if stage.kernels == "real" else result


def initialize(model: tf.keras.Model, name: str) -> None:
    """Reinitializes every kernel with a named initializer, and learned scales from the new kernels."""
    for layer in structure.layers(model):
        kernel = getattr(layer, "latent_kernel", getattr(layer, "kernel", None))
        if kernel is not None:
            seed = tf.random.uniform([], maxval=tf.int32.max, dtype=tf.int32)
            kernel.assign(tf.keras.initializers.get({"class_name": name, "config": {"seed": int(seed)}})(kernel.shape))
        if isinstance(layer, Binarized):
            layer.restart_scale()


@contextlib.contextmanager
def _random_state_in_variables() -> Iterator[None]:
    """Makes Dropout keep its random state in a variable, which checkpoints can store, unlike the state of a kernel."""
    random = tf.keras.backend.experimental
    if random.is_tf_random_generator_enabled():
        yield
        return
    random.enable_tf_random_generator()
    try:
        yield
    finally:
        random.disable_tf_random_generator()


def random_states(model: tf.keras.Model) -> list[tf.random.Generator]:
    """The random generators of a model's layers; Keras does not track them."""
    holders = (getattr(layer, "_random_generator", None) for layer in model.submodules)
    generators = (getattr(holder, "_generator", None) for holder in holders)
    return [generator for generator in generators if generator is not None]
