"""Streams of records: ImageNet and Imagenette on mock data, and real files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from kbnn import datasets
from kbnn.datasets import Transform
from kbnn.datasets.records import stream

TRANSFORM = Transform(resize=40, size=32, flip=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """tensorflow-datasets generates random images, without a network."""
    monkeypatch.setattr("kbnn.datasets.registry._reach", lambda builder: None)
    with tfds.testing.mock_data(num_examples=24, policy=tfds.testing.MockPolicy.USE_CODE):
        yield


@pytest.mark.slow
def test_a_stream_resumes_from_any_step(mocked: None):
    data = datasets.load("imagenet2012", transform=TRANSFORM)
    whole = [images.numpy() for images, _ in data.epochs(8, seed=0).take(5)]
    rest = [images.numpy() for images, _ in data.epochs(8, seed=0, first=4).take(1)]
    np.testing.assert_array_equal(whole[4:], rest)


def test_imagenet_has_224_pixels_by_default(mocked: None):
    data = datasets.load("imagenet2012")
    assert data.input_shape == (224, 224, 3)
    assert data.transform.resize == 256


class Numbers(tfds.core.GeneratorBasedBuilder):
    """Images whose pixels are their own index, in several files."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=2)})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {"train": self._generate_examples(), "validation": self._generate_examples()}

    def _generate_examples(self) -> Iterator:
        for k in range(120):
            yield k, {"image": np.full((8, 8, 3), k, np.uint8), "label": k % 2}


def numbers_of(batches: tf.data.Dataset) -> list[int]:
    found = [images.numpy()[:, 0, 0, 0] * 58.40 + 123.68 for images, _ in batches]
    return np.rint(np.concatenate(found)).astype(int).tolist()


@pytest.mark.slow
def test_real_files_are_shuffled_in_every_epoch_and_repeatably(tmp_path: Path):
    builder = Numbers(data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=4))
    assert builder.info.splits["train"].num_shards == 4
    data = stream("imagenette", builder, 0.1, Transform(size=8))
    assert (data.train.size, data.validation.size, data.test.size) == (108, 12, 120)
    seen = numbers_of(data.epochs(12, seed=0).take(18))
    first, second = seen[:108], seen[108:]
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 108
    assert first != second
    assert numbers_of(data.epochs(12, seed=0, first=9).take(9)) == second
    held_out = numbers_of(data.batches(data.validation, 12))
    assert not set(held_out) & set(first)
