"""Training: recipes, runs that survive interruptions, and callbacks for any `model.fit`.

>>> recipe = kbnn.training.Recipe.of(model="tiny", method="bireal", dataset="digits", epochs=30)
>>> run = kbnn.training.train(recipe, output="runs/digits")
>>> run.model()
>>> kbnn.training.train(kbnn.training.catalog.find("siman-resnet20-cifar10"), output="runs/siman")

Recipes and the catalog do not need TensorFlow; everything else imports it on first use.
"""

import importlib
from typing import TYPE_CHECKING

from kbnn.training import catalog
from kbnn.training.grid import Axis, Grid
from kbnn.training.recipe import DataSettings, Distillation, ModelSettings, Recipe, Stage

if TYPE_CHECKING:
    from kbnn.training import distribution
    from kbnn.training.callbacks import BatchNormRetraining, FlipRatio
    from kbnn.training.keeper import InterruptedRunError
    from kbnn.training.learner import DivergenceError, Learner, TerminateOnDivergence
    from kbnn.training.optimizers import LearningRate
    from kbnn.training.progress import Progress, TrainingPlan
    from kbnn.training.results import Evaluation, Result, evaluate, result
    from kbnn.training.run import Run
    from kbnn.training.schedules import (
        BetaSchedule,
        EDESchedule,
        PercentileSchedule,
        QuantizerSchedule,
        RegularizationWarmup,
    )
    from kbnn.training.session import train

__all__ = [
    "Axis",
    "BatchNormRetraining",
    "BetaSchedule",
    "DataSettings",
    "Distillation",
    "DivergenceError",
    "EDESchedule",
    "Evaluation",
    "FlipRatio",
    "Grid",
    "InterruptedRunError",
    "Learner",
    "LearningRate",
    "ModelSettings",
    "PercentileSchedule",
    "Progress",
    "QuantizerSchedule",
    "Recipe",
    "RegularizationWarmup",
    "Result",
    "Run",
    "Stage",
    "TerminateOnDivergence",
    "TrainingPlan",
    "catalog",
    "distribution",
    "evaluate",
    "result",
    "train",
]

_MODULES = {
    "callbacks": ("BatchNormRetraining", "FlipRatio"),
    "keeper": ("InterruptedRunError",),
    "learner": ("DivergenceError", "Learner", "TerminateOnDivergence"),
    "optimizers": ("LearningRate",),
    "progress": ("Progress", "TrainingPlan"),
    "results": ("Evaluation", "Result", "evaluate", "result"),
    "run": ("Run",),
    "schedules": (
        "BetaSchedule",
        "EDESchedule",
        "PercentileSchedule",
        "QuantizerSchedule",
        "RegularizationWarmup",
    ),
    "session": ("train",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    if name == "distribution":
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
