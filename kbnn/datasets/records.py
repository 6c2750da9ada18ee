"""Streams the records of tensorflow-datasets that are too large for memory."""

from typing import TYPE_CHECKING

import tensorflow as tf

from kbnn.datasets.dataset import IMAGENET, Dataset
from kbnn.datasets.encoded import Encoded
from kbnn.datasets.transform import Transform

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# The split on which papers report accuracies.
_TEST = {"imagenet2012": "validation", "imagenette": "validation"}


def stream(name: str, builder: "tfds.core.DatasetBuilder", validation: float, transform: Transform) -> Dataset:
    """A data set that reads its files again in every epoch.

    The validation images are the last ones of the training split, which tensorflow-datasets shuffled when it prepared
    the data set.
    """
    classes = tuple(builder.info.features["label"].names)
    kept = f"[:{100 - 100 * validation:g}%]" if validation else ""
    train = _split(builder, f"train{kept}")
    held_out = _split(builder, f"train[{100 - 100 * validation:g}%:]") if validation else Encoded(0, train.read)
    return Dataset(name, classes, IMAGENET, train, held_out, _split(builder, _TEST[name]), transform)


def _split(builder: "tfds.core.DatasetBuilder", part: str) -> Encoded:
    import tensorflow_datasets as tfds

    # AutoGraph has nothing to convert here: only the seed is a tensor.
    @tf.autograph.experimental.do_not_convert
    def read(seed: tf.Tensor | None) -> tf.data.Dataset:
        config = tfds.ReadConfig(shuffle_seed=None if seed is None else tf.cast(seed[0], tf.int64))
        records = builder.as_dataset(
            split=part,
            shuffle_files=seed is not None,
            read_config=config,
            decoders={"image": tfds.decode.SkipDecoding()},
        )
        return records.map(lambda record: (record["image"], tf.cast(record["label"], tf.int32)))

    return Encoded(int(read(None).cardinality().numpy()), read, f"{builder.info.full_name}:{part}")
