"""Data sets by name."""

import contextlib
import inspect
import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from kbnn.datasets.arrays import Arrays
from kbnn.datasets.dataset import Dataset, assemble, split_off
from kbnn.datasets.transform import Transform
from kbnn.errors import KbnnError, UsageError
from kbnn.registry import Registry

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# (name, share of validation images, folder of prepared data, transform) -> data set
Loader = Callable[[str, float, object, Transform | None], Dataset]
Source = TypeVar("Source", bound=Callable[..., object])

VALIDATION = 0.1
SEED = 0

# ImageNet's images differ in size, so they need a transform even if none is given.
_IMAGENET = Transform(resize=256, size=224)


def load(
    name: str,
    *,
    validation: float = VALIDATION,
    data_dir: str | os.PathLike[str] | None = None,
    transform: Transform | None = None,
) -> Dataset:
    """Loads a data set: small ones into memory, large ones as streams.

    Args:
        name: one of `names()`.
        validation: share of the training images to hold out, stratified; always the same images.
        data_dir: where tensorflow-datasets keeps its prepared data; by default its own folder.
        transform: augmentation, resizing and cropping; by default none, or for ImageNet 224x224.

    Raises:
        UsageError: an unknown name, or a share that is not in [0, 1).
        KbnnError: the data set is not prepared and cannot be downloaded.

    Example:
        >>> kbnn.datasets.load("digits").test.size
        360
    """
    check_share(validation)
    return _DATASETS.get(name)(name, validation, data_dir, transform)


def names() -> list[str]:
    """The names that `load` accepts."""
    return _DATASETS.names()


def register(name: str, *, classes: Sequence[str] | None = None) -> Callable[[Source], Source]:
    """Registers a function that returns a data set, under a name for `load`, recipes and the command line.

    The function may have any of the parameters `validation`, `data_dir` and `transform`, and receives the values passed
    to `load`. It returns `(train_images, train_labels), (test_images, test_labels)`, like the functions of
    `tf.keras.datasets`, or anything else that `kbnn.datasets.of` accepts, such as a `Dataset`.

    Args:
        name: name of the data set.
        classes: names of the classes, if the function returns arrays; by default their numbers.

    Raises:
        UsageError: the name is taken.

    Example:
        >>> @kbnn.datasets.register("mine", classes=("cat", "dog"))
        ... def mine():
        ...     return (train_images, train_labels), (test_images, test_labels)
        >>> kbnn.datasets.load("mine")
    """

    def decorator(source: Source) -> Source:
        def loader(name: str, validation: float, data_dir: object, transform: Transform | None) -> Dataset:
            settings = {"validation": validation, "data_dir": data_dir, "transform": transform}
            wanted = [key for key in inspect.signature(source).parameters if key in settings]
            found = source(**{key: settings[key] for key in wanted})
            return _given(name, found, classes, validation, transform)

        _DATASETS.add(name, loader, source)
        return source

    return decorator


def _given(
    name: str, found: object, classes: Sequence[str] | None, validation: float, transform: Transform | None
) -> Dataset:
    # Imported here to avoid a cycle.
    from kbnn.datasets.given import Given, of

    try:
        return of(cast(Given, found), name=name, classes=classes, validation=validation, transform=transform)
    except UsageError as error:
        raise UsageError(f"data set '{name}': {error}") from error


def _adopt(name: str, found: object) -> None:
    if not callable(found):
        raise UsageError(f"an entry point of '{_DATASETS.group}' must name a module or a function: received {found!r}")
    register(name)(found)


_DATASETS: Registry[Loader] = Registry("data set", "kbnn.datasets", _adopt)


def check_name(name: str) -> None:
    """Raises UsageError unless there is a data set with this name; close names are suggested."""
    _DATASETS.get(name)


def check_share(validation: float) -> None:
    """Raises UsageError unless the share of validation images is in [0, 1)."""
    if not 0 <= validation < 1:
        raise UsageError(f"validation share is out of range: received {validation}, choose 0 <= share < 1")


def _digits(name: str, validation: float, _: object, transform: Transform | None) -> Dataset:
    """1797 scans of handwritten digits, 8x8, which ship with scikit-learn (Alpaydin and Kaynak, 1998).

    A stratified fifth of them is the test split.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    train, test = split_off(Arrays(pixels, digits.target.astype(np.int32)), 0.2, SEED)
    classes = [str(label) for label in digits.target_names]
    return assemble(name, classes, train, test, validation=validation, seed=SEED, transform=transform or Transform())


def _in_memory(name: str, validation: float, data_dir: object, transform: Transform | None) -> Dataset:
    import numpy as np

    builder = prepared(name, data_dir)
    import tensorflow_datasets as tfds

    def split(part: str) -> Arrays:
        batches = tfds.as_numpy(builder.as_dataset(split=part, batch_size=1000, as_supervised=True))
        images, labels = zip(*batches, strict=True)
        return Arrays(np.concatenate(images), np.concatenate(labels).astype(np.int32))

    classes, train, test = builder.info.features["label"].names, split("train"), split("test")
    return assemble(name, classes, train, test, validation=validation, seed=SEED, transform=transform or Transform())


def _streamed(name: str, validation: float, data_dir: object, transform: Transform | None) -> Dataset:
    from kbnn.datasets.records import stream

    builder = prepared(_CONFIGURED.get(name, name), data_dir)
    return stream(name, builder, validation, transform or _IMAGENET)


def prepared(name: str, data_dir: object) -> "tfds.core.DatasetBuilder":
    """The tensorflow-datasets builder of a data set, which is downloaded if it is not on disk.

    Raises:
        KbnnError: the data set is not prepared and cannot be downloaded.
    """
    os.environ.setdefault("NO_GCE_CHECK", "true")
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.data_path.exists():
        _prepare(builder)
    return builder


def _prepare(builder: "tfds.core.DatasetBuilder") -> None:
    try:
        _reach(builder)
        # It prints a message on stdout, which is reserved for results; its progress bars are on stderr.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise KbnnError(
            f"data set '{builder.name}' is not prepared in '{builder.data_dir}' and cannot be downloaded "
            f"({reason}): connect to the network, or give the folder of a prepared copy",
            parameter="data_dir",
        ) from error


def _reach(builder: "tfds.core.DatasetBuilder") -> None:
    """Requests the first file once: without a network, tensorflow-datasets itself would retry for minutes."""
    import requests

    fetched_by_hand = builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None
    for url in [] if fetched_by_hand else list(builder.url_infos or [])[:1]:
        requests.head(url, timeout=15)


_CONFIGURED = {"imagenette": "imagenette/320px-v2"}

for _name, _loader in (
    ("digits", _digits),
    ("cifar10", _in_memory),
    ("cifar100", _in_memory),
    ("svhn_cropped", _in_memory),
    ("imagenet2012", _streamed),
    ("imagenette", _streamed),
):
    _DATASETS.add(_name, _loader, _loader)
