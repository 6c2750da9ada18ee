"""Image folders: which files are read, how they are decoded, and the errors that name a file."""

import io
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from kbnn.datasets import Dataset, Fingerprint, Transform, load_folder, pictures
from kbnn.datasets.dataset import Split
from kbnn.datasets.pictures import decode
from kbnn.errors import KbnnError, UsageError

SMALL = Transform(resize=9, size=8, flip=True)
PLAIN = Transform(size=8)


def paint(folder: Path, count: int, grey: int, sizes: Iterable[tuple[int, int]] = ((12, 16), (20, 10))) -> None:
    """Writes images of one grey level, in two formats and shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = list(sizes)
    for k in range(count):
        image = PIL.Image.fromarray(np.full((*shapes[k % len(shapes)], 3), grey, np.uint8))
        image.save(folder / f"{k:02}.{('png', 'jpg')[k % 2]}")


def paint_splits(root: Path, splits: Iterable[str], classes: Iterable[str] = ("dark", "light"), count: int = 4) -> None:
    for split in splits:
        for k, name in enumerate(classes):
            paint(root / split / name, count, 40 + 40 * k)


def grey_levels(data: Dataset, split: Split) -> dict[str, float]:
    """Mean level of each class's first channel."""
    images = data.inputs(split)[..., 0] * data.normalization.std[0] + data.normalization.mean[0]
    return {name: float(images[split.labels == k].mean()) for k, name in enumerate(data.classes)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos" / "dark", 15, 40)
    paint(tmp_path / "photos" / "light", 25, 200)
    return tmp_path / "photos"


def test_a_test_split_is_held_out(photos: Path):
    data = load_folder(photos, transform=SMALL)
    assert data.name == "photos"
    assert data.classes == ("dark", "light")
    assert data.input_shape == (8, 8, 3)
    assert (data.train.size, data.validation.size, data.test.size) == (28, 4, 8)
    assert np.bincount(data.test.labels).tolist() == [3, 5]
    assert data.summary == "photos: 40 images of 2 classes (dark, light): 28 to train, 4 to validate, 8 to test"


def test_images_have_the_labels_of_their_folders(photos: Path):
    data = load_folder(photos, transform=SMALL)
    mean, std = data.normalization.mean[0], data.normalization.std[0]
    for images, labels in data.epochs(7, seed=0).take(4):
        grey = images.numpy()[..., 0] * std + mean
        np.testing.assert_allclose(grey.mean((1, 2)), np.where(labels == 0, 40, 200), atol=2)


@pytest.mark.parametrize(
    "splits",
    [
        ("train", "test"),
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("training", "validation"),
        ("seg_train", "seg_test"),
        ("imagesTrain", "imagesVal"),
        ("TRAIN-2", "VALID-2"),
        ("trainingset", "testdata"),
    ],
    ids="/".join,
)
def test_split_folders_are_recognized(splits: tuple[str, str], tmp_path: Path):
    paint_splits(tmp_path, splits)
    data = load_folder(tmp_path, transform=SMALL, validation=0)
    assert data.classes == ("dark", "light")
    assert (data.train.size, data.validation.size, data.test.size) == (8, 0, 8)


@pytest.mark.slow
def test_each_of_three_splits_is_used(tmp_path: Path):
    for split, grey in (("train", 40), ("val", 90), ("test", 150)):
        for name in ("a", "b"):
            paint(tmp_path / split / name, 4, grey)
    data = load_folder(tmp_path, transform=SMALL)
    levels = [grey_levels(data, split)["a"] for split in (data.train, data.validation, data.test)]
    np.testing.assert_allclose(levels, [40, 90, 150], atol=2)
    assert (data.train.size, data.validation.size, data.test.size) == (8, 8, 8)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("train",), "has the split 'train', but no folder of test or validation images"),
        (("val", "test"), "has the split 'test' and 'val', but no folder of training images"),
        (("train1", "train2", "test"), "has 2 folders of train images: 'train1' and 'train2'"),
        (
            ("fold1", "fold2"),
            r"'fold1' and 'fold2' in .* have the same sub-folders \(dark, light\): if they are splits",
        ),
        (("train", "holdout", "traindata"), "has 2 folders of train images: 'train' and 'traindata'"),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, tuple) else "",
)
def test_ambiguous_splits_are_refused(splits: tuple[str, ...], message: str, tmp_path: Path):
    paint_splits(tmp_path, splits)
    with pytest.raises(UsageError, match=message):
        load_folder(tmp_path, transform=SMALL)


@pytest.mark.parametrize("other", [("cat",), ("cat", "bird")], ids="/".join)
def test_folders_that_share_a_sub_folder_are_no_classes(other: tuple[str, ...], tmp_path: Path):
    paint_splits(tmp_path, ["learn"], ("cat", "dog"))
    paint_splits(tmp_path, ["hold"], other)
    with pytest.raises(UsageError, match=r"'hold' and 'learn' in .* have the same sub-folders \(cat\)"):
        load_folder(tmp_path, transform=SMALL)


def test_test_images_without_classes_are_named(tmp_path: Path):
    paint_splits(tmp_path, ["train"])
    paint(tmp_path / "test", 2, 40)
    with pytest.raises(UsageError, match=r"no folder of test or validation images with a .* \('test' has none\)"):
        load_folder(tmp_path, transform=SMALL)


def test_a_class_may_be_called_train(tmp_path: Path):
    for name in ("bus", "train"):
        paint(tmp_path / name, 4, 40)
    assert load_folder(tmp_path, transform=SMALL, validation=0).classes == ("bus", "train")


def test_images_in_sub_folders_belong_to_the_class(tmp_path: Path):
    paint(tmp_path / "a" / "monday", 4, 40)
    paint(tmp_path / "a" / "tuesday", 4, 40)
    paint(tmp_path / "b", 4, 90)
    data = load_folder(tmp_path, transform=SMALL, validation=0)
    assert data.train.size + data.test.size == 12


def test_skipped_files_are_counted(photos: Path, tmp_path: Path):
    (photos / "dark" / ".DS_Store").write_bytes(b"hidden")
    paint(photos / "dark" / ".ipynb_checkpoints", 3, 40)
    paint(photos / ".cache", 3, 40)
    (photos / "light" / "Thumbs.db").write_bytes(b"")
    (photos / "light" / "gone.jpg").symlink_to(tmp_path / "absent.jpg")
    (photos / "light" / "again").symlink_to(photos / "light")
    (photos / "README.md").write_text("about")
    paint(tmp_path / "elsewhere", 2, 200)
    (photos / "light" / "more").symlink_to(tmp_path / "elsewhere")
    data = load_folder(photos, transform=SMALL)
    assert data.train.size + data.validation.size + data.test.size == 42
    assert data.summary.endswith(
        "left out: 1 broken links, 3 hidden, 1 links to a folder that was already read, 1 of the operating system, "
        "1 outside of the class folders"
    )


@pytest.mark.parametrize(
    ("link", "target"),
    [("dark/all", ""), ("dark/more", "light"), ("dark/other", "light/inner"), ("loop", "")],
    ids=["the data set", "another class", "a part of another class", "the data set as a class"],
)
def test_links_do_not_give_an_image_two_labels(link: str, target: str, photos: Path):
    paint(photos / "light" / "inner", 2, 200)
    (photos / link).symlink_to(photos / target)
    data = load_folder(photos, transform=PLAIN, validation=0)
    assert data.classes == ("dark", "light")
    counts = np.bincount(np.concatenate([data.train.labels, data.test.labels]))
    assert counts.tolist() == [15, 27]
    assert data.left_out.startswith("1 links to a folder that was already read")


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("night", "dark", "'dark' and 'night' in .*photos' are links to the same folder: keep one"),
        ("night", "dark/inner", "'night' in .*photos' is a link to a part of 'dark': remove the link"),
    ],
)
def test_classes_that_overlap_are_refused(link: str, target: str, message: str, photos: Path):
    paint(photos / "dark" / "inner", 2, 40)
    (photos / link).symlink_to(photos / target)
    with pytest.raises(UsageError, match=message):
        load_folder(photos, transform=PLAIN)


def test_large_images_are_kept_small(tmp_path: Path):
    paint(tmp_path / "a", 4, 40, sizes=[(400, 300)])
    paint(tmp_path / "b", 4, 90, sizes=[(300, 400)])
    data = load_folder(tmp_path, transform=SMALL, validation=0)
    shapes = {tf.io.decode_image(record).shape for record, _ in data.train.read(None)}
    assert shapes == {(12, 9, 3), (9, 12, 3)}


# Every image is 8x8: red above, blue below.
RED, BLUE = (255, 0, 0), (0, 0, 255)


def two_colours() -> PIL.Image.Image:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[4:] = RED, BLUE
    return PIL.Image.fromarray(pixels)


def rotated(orientation: int) -> PIL.Image.Image:
    """The image stored rotated or flipped, with the EXIF orientation that undoes it."""
    turned = {3: PIL.Image.Transpose.ROTATE_180, 6: PIL.Image.Transpose.ROTATE_90, 8: PIL.Image.Transpose.ROTATE_270}
    image = two_colours().transpose(turned[orientation])
    image.getexif()[0x0112] = orientation
    return image


def with_alpha() -> PIL.Image.Image:
    """Transparent green in the corner: transparent parts become white, whatever their colour."""
    image = two_colours().convert("RGBA")
    image.putpixel((0, 0), (0, 255, 0, 0))
    return image


def saved(image: PIL.Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    exif = {"exif": image.getexif()} if len(image.getexif()) else {}
    lossless = (
        {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    )
    image.save(buffer, format_, **exif, **lossless)
    return buffer.getvalue()


ENCODED: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(two_colours(), "JPEG"),
    "jpeg turned by 180": lambda: saved(rotated(3), "JPEG"),
    "jpeg turned by 90": lambda: saved(rotated(6), "JPEG"),
    "jpeg turned by 270": lambda: saved(rotated(8), "JPEG"),
    "png turned by 90": lambda: saved(rotated(6), "PNG"),
    "cmyk jpeg": lambda: saved(two_colours().convert("CMYK"), "JPEG"),
    "palette png": lambda: saved(two_colours().convert("P", palette=PIL.Image.Palette.ADAPTIVE), "PNG"),
    "palette bmp": lambda: saved(two_colours().convert("P", palette=PIL.Image.Palette.ADAPTIVE), "BMP"),
    "palette gif": lambda: saved(two_colours().convert("P", palette=PIL.Image.Palette.ADAPTIVE), "GIF"),
    "bmp": lambda: saved(two_colours(), "BMP"),
    "webp": lambda: saved(two_colours(), "WEBP"),
    "tiff": lambda: saved(two_colours(), "TIFF"),
}


def first_image(content: bytes, tmp_path: Path) -> np.ndarray:
    """Pixels of an image as the network's input, before normalization."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(2):
            (tmp_path / name / f"{k}.img").write_bytes(content)
    data = load_folder(tmp_path, transform=PLAIN, validation=0)
    return data.inputs(data.train, 1)[0] * np.array(data.normalization.std) + np.array(data.normalization.mean)


@pytest.mark.parametrize("kind", ENCODED)
def test_every_format_is_decoded_upright_to_rgb(kind: str, tmp_path: Path):
    pixels = first_image(ENCODED[kind](), tmp_path)
    np.testing.assert_allclose(pixels[1:3], np.broadcast_to(RED, (2, 8, 3)), atol=12)
    np.testing.assert_allclose(pixels[5:7], np.broadcast_to(BLUE, (2, 8, 3)), atol=12)


def test_transparent_parts_become_white(tmp_path: Path):
    pixels = first_image(saved(with_alpha(), "PNG"), tmp_path)
    np.testing.assert_allclose(pixels[0, :2], [(255, 255, 255), RED], atol=1e-3)


def test_16_bit_levels_become_8_bit_ones(tmp_path: Path):
    levels = np.full((8, 8), 0x80FF, np.uint16)
    pixels = first_image(saved(PIL.Image.fromarray(levels), "PNG"), tmp_path)
    np.testing.assert_allclose(pixels, 0x80, atol=1e-3)


def tiff(bits: int, photometric: int, data: bytes) -> bytes:
    """A TIFF file of one row of two grey pixels, written by hand."""
    entries = [(256, 2), (257, 1), (258, bits), (259, 1), (262, photometric), (277, 1), (278, 1)]
    places = [(273, 8 + 2 + 12 * 9 + 4), (279, len(data))]
    directory = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in (*entries, *places)]
    directory.sort(key=lambda entry: struct.unpack_from("<H", entry))
    return b"II*\0" + struct.pack("<IH", 8, len(directory)) + b"".join(directory) + bytes(4) + data


def png(colour: int, transparent: bytes, row: bytes) -> bytes:
    """A PNG file of one row of two pixels with 16 bits per level, written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


# Two grey pixels with the levels 0x20 and 0xE0, if 8 bits are kept.
DEEP: dict[str, bytes] = {
    "tiff of 12 bits": tiff(12, 1, b"\x20\x1e\x02"),
    "tiff of 16 bits": tiff(16, 1, b"\xff\x20\x00\xe0"),
    "tiff of 16 bits, 0 is white": tiff(16, 0, b"\x00\xdf\xff\x1f"),
    "pgm of 16 bits": b"P5 2 1 65535\n\x20\xff\xe0\x00",
    "pgm of 12 bits": b"P5 2 1 4095\n\x02\x08\x0e\x08",
    "pgm of 16 bits as text": b"P2 2 1 65535\n8240 57400\n",
    "png of 16 bits": png(0, b"\x00\x00", b"\x20\xff\xe0\x00"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_levels_become_8_bit_ones(kind: str):
    pixels = decode(DEEP[kind])
    np.testing.assert_array_equal(pixels, np.repeat([[[0x20], [0xE0]]], 3, axis=2))


def test_a_transparent_16_bit_level_becomes_white():
    pixels = decode(png(0, b"\x20\xff", b"\x20\xff\xe0\x00"))
    np.testing.assert_array_equal(pixels[0, :, 0], [0xFF, 0xE0])


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
    assert message.startswith(f"4 in '{damaged}' cannot be read: dark/empty.jpg (empty), dark/notes.txt (not a JPEG, ")
    assert message.endswith("remove them, or leave them out with unreadable='skip'")
    assert caught.value.parameter == "unreadable"


def test_damaged_images_can_be_left_out(damaged: Path, caplog: pytest.LogCaptureFixture):
    data = load_folder(damaged, transform=SMALL, unreadable="skip")
    assert data.classes == ("dark", "light")
    assert data.train.size + data.validation.size + data.test.size == 40
    assert "left out: 4 in" in caplog.text
    assert data.left_out == "1 classes without images, 3 damaged, too large or not images"


def test_control_characters_in_names_are_not_printed(photos: Path, caplog: pytest.LogCaptureFixture):
    (photos / "dark" / "\x1b[2J\nevil.png").write_bytes(b"no image")
    with pytest.raises(KbnnError) as caught:
        load_folder(photos, transform=SMALL)
    load_folder(photos, transform=SMALL, unreadable="skip")
    for text in (str(caught.value), caplog.messages[0]):
        assert r"\x1b[2J" in text
        assert "\x1b" not in text


def huge(path: Path) -> None:
    """An empty file with an apparent size of 6 GB."""
    with path.open("wb") as file:
        file.truncate(6_000_000_000)


def bomb(path: Path) -> None:
    """A valid PNG of 20,000 x 20,000 pixels in a few hundred kilobytes."""
    PIL.Image.new("1", (20_000, 20_000)).save(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (huge, r"6,000,000,000 bytes, the limit is 100,000,000\); remove them, raise max_bytes, or"),
        (bomb, r"20000x20000 pixels, the limit is 90,000,000\); remove them, raise max_pixels, or"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
    ids=["sparse file", "pixel bomb", "fifo", "device"],
)
def test_size_is_bounded_before_reading(make: Callable[[Path], None], message: str, photos: Path):
    make(photos / "dark" / "evil.png")
    with pytest.raises(KbnnError, match=rf"dark/evil\.png \({message}"):
        load_folder(photos, transform=SMALL)


def test_large_images_are_decoded_one_at_a_time(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "_LARGE", 100)
    running, most, rgb = 0, 0, pictures._rgb

    def counted(image: PIL.Image.Image, source: PIL.Image.Image) -> PIL.Image.Image:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        found = rgb(image, source)
        running -= 1
        return found

    monkeypatch.setattr(pictures, "_rgb", counted)
    load_folder(photos, transform=PLAIN)
    assert most == 1


def test_limits_can_be_set(photos: Path):
    with pytest.raises(KbnnError, match="pixels, the limit is 191"):
        load_folder(photos, transform=SMALL, max_pixels=191)
    with pytest.raises(KbnnError, match="the limit is 10"):
        load_folder(photos, transform=SMALL, max_bytes=10)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"caf\xe9", "is not UTF-8"),
        (b"cat\ndog", "has a line break"),
        (b"cat\rdog", "has a line break"),
        ("cat\u2028dog".encode(), "has a line break"),
        (b"cat\x1b[2J", "has a control character"),
        (b" ", "is empty"),
    ],
    ids=["latin-1", "newline", "carriage return", "line separator", "escape", "blank"],
)
def test_class_names_that_cannot_be_stored(name: bytes, reason: str, photos: Path):
    os.mkdir(os.path.join(os.fsencode(photos), name))  # noqa: PTH102, PTH118
    with pytest.raises(UsageError, match=rf"class name .* {reason}: rename the class \(a folder in '.*photos'\)"):
        load_folder(photos, transform=SMALL)


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


def test_a_folder_around_the_classes(tmp_path: Path):
    for name in ("a", "b"):
        paint(tmp_path / "photos" / name, 4, 40)
    with pytest.raises(UsageError, match=r"its sub-folder '.*photos' has sub-folders of its own, give that one"):
        load_folder(tmp_path, transform=SMALL)


def test_classes_that_differ_between_splits(tmp_path: Path):
    paint_splits(tmp_path, ["train"], "abc")
    paint_splits(tmp_path, ["test"], "ab")
    with pytest.raises(UsageError, match=r"train' has 3 classes and '.*test' has 2: 'c' is only in one of them"):
        load_folder(tmp_path, transform=SMALL)


def test_one_image_of_a_class(tmp_path: Path):
    paint(tmp_path / "cat", 1, 40)
    paint(tmp_path / "dog", 5, 90)
    with pytest.raises(UsageError, match=r"class 'cat' has only one image to split .* add images of 'cat'"):
        load_folder(tmp_path, transform=SMALL)


def test_few_images_are_split(tmp_path: Path):
    for name in "abcde":
        paint(tmp_path / name, 3, 40)
    data = load_folder(tmp_path, transform=SMALL)
    assert [sorted(split.labels) for split in (data.train, data.validation, data.test)] == [[0, 1, 2, 3, 4]] * 3


def test_the_fingerprint_shows_changes(photos: Path):
    def fingerprint() -> Fingerprint:
        return load_folder(photos, transform=SMALL).fingerprint()

    before = fingerprint()
    assert before == fingerprint()
    (photos / "dark").rename(photos / "night")
    assert before.difference(fingerprint()) == "class 'dark' is missing and class 'night' is new"
    (photos / "night").rename(photos / "dark")
    paint(photos / "light", 25, 201)
    assert before.difference(fingerprint()) == "the images have changed, although their number has not"
    paint(photos / "light", 30, 201)
    assert before.difference(fingerprint()) == "class 'light' has 24 images instead of 20"
