"""Recipes, runs that survive interruption, and the callbacks they are made of.

>>> recipe = kbnn.training.Recipe.of(model="tiny", method="bireal", dataset="digits", epochs=30)
>>> run = kbnn.training.train(recipe, output="runs/digits")
>>> run.model()
"""

from kbnn.training.ede_schedule import EDESchedule
from kbnn.training.evaluate import Evaluation, evaluate
from kbnn.training.interruption import InterruptedRunError
from kbnn.training.recipe import DataSettings, ModelSettings, Recipe, Stage
from kbnn.training.result import Result, result
from kbnn.training.run import Run
from kbnn.training.train import train

__all__ = [
    "DataSettings",
    "EDESchedule",
    "Evaluation",
    "InterruptedRunError",
    "ModelSettings",
    "Recipe",
    "Result",
    "Run",
    "Stage",
    "evaluate",
    "result",
    "train",
]
