"""Shifts, flips, resizing and crops."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.datasets import Transform
from kbnn.errors import UsageError

SEED = tf.constant([3, 5])


def numbered(count: int = 64, side: int = 6) -> tf.Tensor:
    """Images whose pixels are all different and not 0."""
    pixels = np.arange(1, side * side + 1, dtype=np.uint8).reshape(1, side, side, 1)
    return tf.constant(np.repeat(pixels, count, axis=0))


def all_shifts(image: np.ndarray, pad: int) -> list[np.ndarray]:
    side = len(image)
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return [padded[i : i + side, j : j + side] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]


def test_every_image_is_one_of_the_shifted_or_mirrored_ones():
    images = numbered()
    result = Transform(pad=1, flip=True).training(images, SEED).numpy()
    allowed = {
        shifted.tobytes()
        for image in (images[0].numpy(), images[0].numpy()[:, ::-1])
        for shifted in all_shifts(image, 1)
    }
    seen = {image.tobytes() for image in result}
    assert result.dtype == np.uint8
    assert seen <= allowed
    # 64 draws from 18 variants contain almost all of them.
    assert len(seen) >= 14


def test_half_of_the_images_are_mirrored():
    images = numbered(400)
    result = Transform(flip=True).training(images, SEED).numpy()
    mirrored = (result == images.numpy()[:, :, ::-1]).all((1, 2, 3))
    straight = (result == images.numpy()).all((1, 2, 3))
    assert (mirrored ^ straight).all()
    assert 160 <= mirrored.sum() <= 240


def test_the_batch_depends_only_on_the_seed():
    transform = Transform(pad=2, flip=True)
    first = transform.training(numbered(), SEED).numpy()
    assert (transform.training(numbered(), SEED).numpy() == first).all()
    assert (transform.training(numbered(), SEED + 1).numpy() != first).any()


def test_an_empty_transform_changes_nothing():
    images = numbered()
    assert (Transform().training(images, SEED).numpy() == images.numpy()).all()
    assert (Transform().testing(images).numpy() == images.numpy()).all()


def test_testing_crops_the_centre():
    cropped = Transform(size=2).testing(numbered(1)).numpy()[0, :, :, 0]
    assert cropped.tolist() == [[15, 16], [21, 22]]


def test_training_crops_windows_at_random():
    result = Transform(size=4).training(numbered(), SEED).numpy()[..., 0]
    corners = {tuple(image[0, :1]) for image in result}
    assert result.shape == (64, 4, 4)
    assert corners <= {(1,), (2,), (3,), (7,), (8,), (9,), (13,), (14,), (15,)}
    assert len(corners) >= 8
    assert (np.diff(result.astype(int), axis=2) == 1).all()


@pytest.mark.parametrize(
    ("square", "expected"), [(False, (12, 18, 3)), (True, (12, 12, 3))], ids=["shorter side", "both sides"]
)
def test_resize(square: bool, expected: tuple[int, int, int]):
    transform = Transform(resize=12, square=square)
    images = tf.ones([2, 6, 9, 3])
    assert transform.shape((6, 9, 3)) == expected
    assert transform.testing(images).shape[1:] == expected
    np.testing.assert_allclose(transform.testing(images), 1.0, rtol=1e-6)


def test_images_are_resized_and_then_cropped():
    transform = Transform(resize=12, size=8)
    assert transform.shape((6, 9, 3)) == (8, 8, 3)
    assert transform.training(tf.ones([2, 6, 9, 3]), SEED).shape == (2, 8, 8, 3)
    assert transform.testing(tf.ones([2, 6, 9, 3])).shape == (2, 8, 8, 3)


def test_scale_crops_parts_of_the_area():
    rows = tf.tile(tf.reshape(tf.range(40.0), [1, 40, 1, 1]), [30, 1, 40, 1])
    result = Transform(size=10, scale=(0.25, 0.5)).training(rows, SEED).numpy()
    heights = (result[:, -1, 0, 0] - result[:, 0, 0, 0]) / 9 * 10
    # A share s of the area at an aspect a between 3/4 and 4/3 is 40·√(s/a) pixels high; whole pixels round.
    assert (heights > 40 * np.sqrt(0.25 * 3 / 4) - 2).all()
    assert (heights < 40 * np.sqrt(0.5 * 4 / 3) + 2).all()
    assert len(np.unique(np.round(heights))) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 10, "size": 12}, "cannot crop size=12 from resize=10"),
        ({"size": 8, "scale": (0.9, 0.5)}, "not a range of shares"),
        ({"scale": (0.5, 1.0)}, "needs a size"),
        ({"square": True, "size": 8}, "square resizes both sides: received resize=None"),
    ],
    ids=["size over resize", "no range", "no size", "nothing to make square"],
)
def test_invalid_arguments(arguments: dict, message: str):
    with pytest.raises(UsageError, match=message):
        Transform(**arguments)


def test_a_crop_larger_than_the_image():
    with pytest.raises(UsageError, match="cannot crop 9x9 from 6x6 pixels: give resize"):
        Transform(size=9).testing(numbered())
    with pytest.raises(UsageError, match="cannot crop 9x9 from 6x6 pixels: give resize"):
        Transform(size=9).training(numbered(), SEED)
