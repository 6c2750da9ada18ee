"""A user's own images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn.datasets import Transform, load_folder
from kbnn.errors import KbnnError, UsageError

SMALL = Transform(resize=9, size=8, flip=True)


def paint(folder: Path, count: int, grey: int, sizes: Iterable[tuple[int, int]] = ((12, 16), (20, 10))) -> None:
    """Images of one grey, in several formats and shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = list(sizes)
    for k in range(count):
        image = np.full((*shapes[k % len(shapes)], 3), grey, np.uint8)
        encode, ending = ((tf.io.encode_png, "png"), (tf.io.encode_jpeg, "jpg"))[k % 2]
        (folder / f"{k:02}.{ending}").write_bytes(encode(image).numpy())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos" / "dark", 15, 40)
    paint(tmp_path / "photos" / "light", 25, 200)
    (tmp_path / "photos" / "dark" / ".DS_Store").write_bytes(b"hidden")
    return tmp_path / "photos"


def test_a_split_is_made(photos: Path):
    data = load_folder(photos, transform=SMALL)
    assert data.name == "photos"
    assert data.classes == ("dark", "light")
    assert data.input_shape == (8, 8, 3)
    assert (data.train.size, data.validation.size, data.test.size) == (28, 4, 8)
    assert np.bincount(data.test.labels).tolist() == [3, 5]


def test_images_arrive_with_their_classes(photos: Path):
    data = load_folder(photos, transform=SMALL)
    mean, std = data.normalization.mean[0], data.normalization.std[0]
    for images, labels in data.epochs(7, seed=0).take(4):
        grey = images.numpy()[..., 0] * std + mean
        np.testing.assert_allclose(grey.mean((1, 2)), np.where(labels == 0, 40, 200), atol=2)


def test_a_given_split_is_kept(photos: Path, tmp_path: Path):
    given = tmp_path / "given"
    paint(given / "train" / "dark", 10, 40)
    paint(given / "train" / "light", 10, 200)
    paint(given / "val" / "dark", 3, 40)
    paint(given / "val" / "light", 2, 200)
    data = load_folder(given, transform=SMALL, validation=0.2)
    assert (data.train.size, data.validation.size, data.test.size) == (16, 4, 5)
    assert sorted(data.test.labels) == [0, 0, 0, 1, 1]
    assert len(data.inputs(data.test, 2)) == 2


def test_large_images_are_kept_small(tmp_path: Path):
    paint(tmp_path / "a", 4, 40, sizes=[(400, 300)])
    paint(tmp_path / "b", 4, 90, sizes=[(300, 400)])
    data = load_folder(tmp_path, transform=SMALL, validation=0)
    shapes = {tf.io.decode_image(record).shape for record, _ in data.train.read(None)}
    assert shapes == {(12, 9, 3), (9, 12, 3)}


@pytest.fixture
def damaged(photos: Path) -> Path:
    (photos / "dark" / "empty.jpg").write_bytes(b"")
    (photos / "dark" / "notes.txt").write_text("not an image")
    whole = (photos / "light" / "00.png").read_bytes()
    (photos / "light" / "half.png").write_bytes(whole[: len(whole) // 2])
    (photos / "none").mkdir()
    return photos


def test_damaged_images_are_counted_named_and_refused(damaged: Path):
    with pytest.raises(KbnnError) as caught:
        load_folder(damaged, transform=SMALL)
    message = str(caught.value)
    assert message.startswith(f"4 in '{damaged}' cannot be read: dark/empty.jpg (empty), dark/notes.txt (not a ")
    assert message.endswith("remove them, or leave them out with --unreadable skip")


def test_damaged_images_can_be_left_out(damaged: Path, caplog: pytest.LogCaptureFixture):
    data = load_folder(damaged, transform=SMALL, unreadable="skip")
    assert data.classes == ("dark", "light")
    assert data.train.size + data.validation.size + data.test.size == 40
    assert "left out: 4 in" in caplog.text


def test_no_folder(tmp_path: Path):
    with pytest.raises(UsageError, match="no folder of images at"):
        load_folder(tmp_path / "nothing")


def test_no_classes(tmp_path: Path):
    with pytest.raises(UsageError, match=r"has images of 0 class\(es\)"):
        load_folder(tmp_path)


def test_one_class(tmp_path: Path):
    paint(tmp_path / "only", 5, 40)
    with pytest.raises(UsageError, match=r"has images of 1 class\(es\): only"):
        load_folder(tmp_path, transform=SMALL)


def test_train_without_test(tmp_path: Path):
    paint(tmp_path / "train" / "a", 5, 40)
    with pytest.raises(UsageError, match="has a folder 'train' but none of test, val"):
        load_folder(tmp_path, transform=SMALL)


def test_other_classes_to_test_than_to_train(tmp_path: Path):
    for part, names in (("train", "abc"), ("test", "ab")):
        for name in names:
            paint(tmp_path / part / name, 4, 40)
    with pytest.raises(UsageError, match="has 3 classes to train and 2 to test: 'c' is only in one of them"):
        load_folder(tmp_path, transform=SMALL)


def test_too_few_images_to_split(tmp_path: Path):
    paint(tmp_path / "a", 1, 40)
    paint(tmp_path / "b", 5, 90)
    with pytest.raises(UsageError, match="cannot hold out a part of the data"):
        load_folder(tmp_path, transform=SMALL)
