"""Data sets: batches, order, normalization, splits."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import datasets
from kbnn.datasets import Arrays, Dataset, Encoded, Normalization, Transform
from kbnn.datasets.dataset import held_out
from kbnn.errors import UsageError


def arrays(count: int) -> Arrays:
    """Images whose pixels are their own index."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), (count, 4, 4, 1)).copy()
    return Arrays(images, np.arange(count, dtype=np.int32) % 2)


def encoded(count: int) -> Encoded:
    images = [tf.io.encode_png(np.full((6, 5, 3), k, np.uint8)).numpy() for k in range(count)]

    def read(seed: tf.Tensor | None) -> tf.data.Dataset:
        order = tf.range(count)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed)
        records = tf.constant(images)
        return tf.data.Dataset.from_tensor_slices(order).map(lambda k: (records[k], k % 2))

    return Encoded(count, read)


def dataset(kind: str, transform: Transform | None = None) -> Dataset:
    make = arrays if kind == "arrays" else encoded
    channels = 1 if kind == "arrays" else 3
    plain = Normalization((0.0,) * channels, (1.0,) * channels)
    size = Transform(size=4)
    return Dataset("numbers", ("even", "odd"), plain, make(22), make(4), make(7), transform or size)


def numbers(batches: tf.data.Dataset) -> list[list[int]]:
    return [np.rint(images.numpy()[:, 0, 0, 0]).astype(int).tolist() for images, _ in batches]


KINDS = pytest.mark.parametrize("kind", ["arrays", "encoded"])


@pytest.mark.slow
@KINDS
def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(kind: str):
    data = dataset(kind)
    seen = np.array(numbers(data.epochs(5, seed=1).take(8))).ravel().tolist()
    epochs = [seen[:20], seen[20:]]
    assert data.steps(5) == 4
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.slow
@KINDS
def test_images_and_labels_stay_together(kind: str):
    for images, labels in dataset(kind).epochs(5, seed=1).take(6):
        np.testing.assert_array_equal(np.rint(images.numpy()[:, 0, 0, 0]) % 2, labels)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("first", [1, 4, 6])
def test_training_data_resumes_from_any_step(kind: str, first: int):
    data = dataset(kind, Transform(size=3, flip=True))
    whole = [images.numpy() for images, _ in data.epochs(5, seed=1).take(9)]
    rest = [images.numpy() for images, _ in data.epochs(5, seed=1, first=first).take(9 - first)]
    np.testing.assert_array_equal(whole[first:], rest)


@pytest.mark.slow
@KINDS
def test_workers_share_the_batches_of_one(kind: str):
    data = dataset(kind, Transform(size=3, flip=True))
    whole = [images.numpy() for images, _ in data.epochs(6, seed=1).take(5)]
    parts = [[images.numpy() for images, _ in data.epochs(6, seed=1, worker=k, workers=2).take(5)] for k in (0, 1)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


@pytest.mark.slow
@KINDS
def test_the_order_does_not_depend_on_the_global_seed(kind: str):
    seen = []
    for global_seed in (0, 1):
        tf.keras.utils.set_random_seed(global_seed)
        seen.append(numbers(dataset(kind).epochs(5, seed=1).take(4)))
    assert seen[0] == seen[1]


@pytest.mark.slow
@KINDS
def test_another_seed_is_another_order(kind: str):
    data = dataset(kind)
    assert numbers(data.epochs(5, seed=1).take(4)) != numbers(data.epochs(5, seed=2).take(4))


@pytest.mark.slow
@KINDS
def test_testing_keeps_the_order_and_the_last_batch(kind: str):
    data = dataset(kind)
    assert numbers(data.batches(data.test, 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert data.inputs(data.test).shape == (7, *data.input_shape)
    assert np.rint(data.inputs(data.test, limit=5)[:, 0, 0, 0]).tolist() == [0, 1, 2, 3, 4]
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert np.rint(data.inputs(data.test.take(np.array([1, 4])))[:, 0, 0, 0]).tolist() == [1, 4]


@pytest.mark.parametrize("batch", [0, 23])
def test_a_batch_that_does_not_fit(batch: int):
    with pytest.raises(UsageError, match=f"received {batch}, choose 1 to 22"):
        dataset("arrays").steps(batch)


def test_a_batch_that_workers_cannot_share():
    with pytest.raises(UsageError, match="2 workers cannot share a batch of 5"):
        dataset("arrays").epochs(5, seed=0, workers=2)


@pytest.mark.parametrize(
    ("transform", "message"), [(Transform(), "choose a size"), (Transform(size=4, pad=1), "give resize instead of pad")]
)
def test_images_of_different_sizes_need_a_size(transform: Transform, message: str):
    with pytest.raises(UsageError, match=message):
        dataset("encoded", transform)


def test_encoded_images_are_cut_from_the_centre_and_resized():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200
    record = tf.io.encode_png(image).numpy()
    split = Encoded(1, lambda seed: tf.data.Dataset.from_tensors((tf.constant(record), tf.constant(0))))
    ((pixels, _),) = split.ordered(1, Transform(size=2))
    np.testing.assert_allclose(pixels, np.full((1, 2, 2, 3), 200), rtol=1e-6)


def test_normalization_is_that_of_the_pixels():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 2), np.uint8)
    normalized = Normalization.of(images)(images).numpy()
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-3)


def test_held_out_is_stratified_and_repeatable():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    rest, part = held_out(labels, 0.1, seed=0)
    assert np.bincount(labels[part]).tolist() == [6, 3, 1]
    assert sorted([*rest, *part]) == list(range(100))
    np.testing.assert_array_equal(part, held_out(labels, 0.1, seed=0)[1])


def test_a_class_with_one_image_cannot_be_split():
    with pytest.raises(UsageError, match="class 'dog' has only one image"):
        held_out(np.array([0, 0, 1]), 0.5, seed=0, classes=("cat", "dog"))


def test_few_images_keep_one_of_each_class():
    labels = np.repeat([0, 1, 2], 2)
    rest, part = held_out(labels, 0.1, seed=0)
    assert (labels[rest].tolist(), labels[part].tolist()) == ([0, 1, 2], [0, 1, 2])


def test_digits():
    data = datasets.load("digits")
    assert (data.train.size, data.validation.size, data.test.size) == (1293, 144, 360)
    assert data.input_shape == (8, 8, 1)
    assert data.classes == tuple("0123456789")
    assert data.train.images.max() == 255
    assert np.abs(np.bincount(data.test.labels) - 36).max() <= 1


def test_splits_share_no_image():
    data = datasets.load("digits")
    together = np.concatenate(
        [split.images.reshape(split.size, -1) for split in (data.train, data.validation, data.test)]
    )
    assert len(together) == 1797
    # The scans contain no duplicates.
    assert len(np.unique(together, axis=0)) == 1797
