"""Recipes, runs that survive interruption, and the callbacks they are made of.

>>> recipe = kbnn.training.Recipe.of(model="tiny", method="bireal", dataset="digits", epochs=30)
>>> run = kbnn.training.train(recipe, output="runs/digits")
>>> run.model()
>>> kbnn.training.train(kbnn.training.catalog.find("siman-resnet20-cifar10"), output="runs/siman")
"""

from kbnn.training import catalog
from kbnn.training.batch_norm_retraining import BatchNormRetraining
from kbnn.training.distillation import Distiller
from kbnn.training.divergence import TerminateOnDivergence
from kbnn.training.evaluate import Evaluation, evaluate
from kbnn.training.flip_ratio import FlipRatio
from kbnn.training.grid import Axis, Grid
from kbnn.training.interruption import InterruptedRunError
from kbnn.training.optimizers import LearningRate
from kbnn.training.recipe import DataSettings, Distillation, ModelSettings, Recipe, Stage
from kbnn.training.result import Result, result
from kbnn.training.run import Run
from kbnn.training.schedules import BetaSchedule, EDESchedule, PercentileSchedule, RegularizationWarmup
from kbnn.training.train import train

__all__ = [
    "Axis",
    "BatchNormRetraining",
    "BetaSchedule",
    "DataSettings",
    "Distillation",
    "Distiller",
    "EDESchedule",
    "Evaluation",
    "FlipRatio",
    "Grid",
    "InterruptedRunError",
    "LearningRate",
    "ModelSettings",
    "PercentileSchedule",
    "Recipe",
    "RegularizationWarmup",
    "Result",
    "Run",
    "Stage",
    "TerminateOnDivergence",
    "catalog",
    "evaluate",
    "result",
    "train",
]
