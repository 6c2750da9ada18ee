"""Data sets, as batches for training and as arrays for evaluation.

>>> data = kbnn.datasets.load("digits")
>>> data.classes, data.input_shape, data.test.size
"""

from kbnn.datasets.arrays import Arrays
from kbnn.datasets.dataset import Dataset, Fingerprint, Normalization
from kbnn.datasets.encoded import Encoded
from kbnn.datasets.folder import load_folder
from kbnn.datasets.given import Given, of
from kbnn.datasets.registry import load, names, register
from kbnn.datasets.transform import Transform

__all__ = [
    "Arrays",
    "Dataset",
    "Encoded",
    "Fingerprint",
    "Given",
    "Normalization",
    "Transform",
    "load",
    "load_folder",
    "names",
    "of",
    "register",
]
