"""Data sets by name."""

import os
from collections.abc import Callable

from kbnn.datasets.dataset import Arrays, Dataset, assemble, split_off
from kbnn.errors import KbnnError, UsageError, unknown

VALIDATION = 0.1
_SEED = 0


def load(name: str, *, validation: float = VALIDATION, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: one of `names()`.
        validation: share of the training images held out to choose by, stratified, always the same images.
        data_dir: where tensorflow-datasets keeps its prepared data; its own default when not given.

    Raises:
        UsageError: an unknown name or a share that is not in [0, 1).
        KbnnError: the data set is not prepared and cannot be downloaded.

    Example:
        >>> kbnn.datasets.load("digits").test.size
        360
    """
    if name not in _LOADERS:
        raise unknown("data set", name, _LOADERS)
    if not 0 <= validation < 1:
        raise UsageError(f"validation share is out of range: received {validation}, choose 0 <= share < 1")
    classes, train, test = _LOADERS[name](name, data_dir)
    return assemble(name, classes, train, test, validation=validation, seed=_SEED)


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(_LOADERS)


Parts = tuple[list[str], Arrays, Arrays]


def _digits(_: str, __: object) -> Parts:
    """Scans of handwritten digits, 8x8, 1797 in all, in scikit-learn's wheel (Alpaydin and Kaynak, 1998).

    A fifth of them, stratified, is the test split.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    train, test = split_off(Arrays(pixels, digits.target.astype(np.int32)), 0.2, _SEED)
    return [str(label) for label in digits.target_names], train, test


def _tensorflow_datasets(name: str, data_dir: object) -> Parts:
    import numpy as np

    os.environ.setdefault("NO_GCE_CHECK", "true")
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.data_path.exists():
        _prepare(builder)

    def split(part: str) -> Arrays:
        arrays = tfds.as_numpy(builder.as_dataset(split=part, batch_size=-1, as_supervised=True))
        return Arrays(np.asarray(arrays[0]), np.asarray(arrays[1], np.int32))

    return builder.info.features["label"].names, split("train"), split("test")


def _prepare(builder: "object") -> None:
    try:
        builder.download_and_prepare()  # type: ignore[attr-defined]
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise KbnnError(
            f"data set '{builder.name}' is not prepared in '{builder.data_dir}' and cannot be downloaded "  # type: ignore[attr-defined]
            f"({reason}): connect to the network, or put a prepared folder there or in --data-dir"
        ) from error


_LOADERS: dict[str, Callable[[str, object], Parts]] = {
    "digits": _digits,
    "cifar10": _tensorflow_datasets,
}
