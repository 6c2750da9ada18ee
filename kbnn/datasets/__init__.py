"""Data sets as batches for training and as arrays for checking.

>>> data = kbnn.datasets.load("digits")
>>> data.classes, data.input_shape, data.test.size
"""

from kbnn.datasets.augmentation import Augmentation
from kbnn.datasets.dataset import Arrays, Dataset, Normalization
from kbnn.datasets.registry import load, names

__all__ = ["Arrays", "Augmentation", "Dataset", "Normalization", "load", "names"]
