"""Decodes image files to upright 8-bit RGB, within limits of size."""

import contextlib
import io
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import PIL.Image
import PIL.ImageOps

from kbnn.errors import KbnnError

# Formats that Pillow decodes itself; for some others it would start external programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO = 258, 262, 0
# Pixels of an image that is decoded alone, whatever the number of threads.
_LARGE = 10_000_000


class UnreadableImageError(KbnnError):
    """An image cannot be decoded; the message consists of the reason only."""


@dataclass(frozen=True)
class Limits:
    """Limits for one image file.

    Args:
        bytes: size of the file.
        pixels: width times height, as decoded; JPEG images may be larger, because they can be decoded at reduced size.
    """

    bytes: int = 100_000_000
    pixels: int = 90_000_000


def read(path: Path, limits: Limits | None = None) -> bytes:
    """The content of an image file.

    Raises:
        UnreadableImageError: it is not a regular file, is too large, or cannot be read.
    """
    limits = limits or Limits()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a regular file")
        if status.st_size > limits.bytes:
            raise UnreadableImageError(
                f"{status.st_size:,} bytes, the limit is {limits.bytes:,}", parameter="max_bytes"
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def read_from(stream: IO[bytes], limits: Limits | None = None) -> bytes:
    """The content of an image that a stream delivers, such as standard input.

    Raises:
        UnreadableImageError: it is too large.
    """
    limits = limits or Limits()
    content = stream.read(limits.bytes + 1)
    if len(content) > limits.bytes:
        raise UnreadableImageError(f"more than {limits.bytes:,} bytes", parameter="max_bytes")
    return content


def decode(data: bytes, limits: Limits | None = None, *, shorter: int | None = None) -> np.ndarray:
    """Pixels of an encoded image, uint8 `(H, W, 3)`.

    Applies the EXIF orientation, makes transparent parts white, reduces 16-bit levels to 8 bits, and takes the first
    frame of an animation.

    Args:
        data: the file's content.
        limits: checked against the header before anything is decoded.
        shorter: length to which the shorter side is shrunk, with antialiasing; smaller images are not resized.

    Raises:
        UnreadableImageError: it is damaged, too large, or in a format that is not supported.
    """
    return np.asarray(_upright_rgb(data, limits or Limits(), shorter))


def shrink(pixels: np.ndarray, shorter: int | None) -> np.ndarray:
    """Pixels uint8 `(H, W, 3)`, shrunk as in `decode`."""
    return np.asarray(_shrunk(PIL.Image.fromarray(pixels), shorter))


def pixels_of(image: PIL.Image.Image) -> np.ndarray:
    """Pixels of a Pillow image of any mode, uint8 `(H, W, 3)`, as `decode` returns them for its file.

    Raises:
        UnreadableImageError: its file is damaged, or its mode is not supported.
    """
    with _decoding():
        image.load()
        return np.asarray(_rgb(_upright(image), image))


def prepare(data: bytes, limits: Limits, shorter: int | None) -> bytes:
    """The pixels that `decode` returns, as an 8-bit RGB PNG file."""
    buffer = io.BytesIO()
    # For photographs, run-length encoding is faster than the default and makes smaller files.
    _upright_rgb(data, limits, shorter).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


@contextlib.contextmanager
def pillow_without_limit() -> Iterator[None]:
    """Turns off Pillow's own limit of pixels, which is global; `Limits` replaces it."""
    with _LOCK:
        before = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = before


_LOCK = threading.RLock()
_ONE_AT_A_TIME = threading.Lock()


def _upright_rgb(data: bytes, limits: Limits, shorter: int | None) -> PIL.Image.Image:
    if not data:
        raise UnreadableImageError("empty")
    with _decoding():
        image: PIL.Image.Image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
        if shorter is not None:
            # Decodes JPEG images at 1/2, 1/4 or 1/8 of their size if that is at least twice the required size.
            scale = 2 * shorter / min(image.size)
            image.draft(None, (round(image.width * scale) + 1, round(image.height * scale) + 1))
        if image.width * image.height > limits.pixels:
            raise UnreadableImageError(
                f"{image.width}x{image.height} pixels, the limit is {limits.pixels:,}", parameter="max_pixels"
            )
        # Several large images at a time would fill the memory.
        with _ONE_AT_A_TIME if image.width * image.height > _LARGE else contextlib.nullcontext():
            image.load()
            return _shrunk(_rgb(_upright(image), image), shorter)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Raises UnreadableImageError instead of the errors by which Pillow reports damaged files."""
    try:
        yield
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImageError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, or damaged") from error
    except (PIL.Image.DecompressionBombError, MemoryError) as error:
        raise UnreadableImageError("too many pixels", parameter="max_pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
        raise UnreadableImageError(f"damaged ({' '.join(str(error).split())[:80] or type(error).__name__})") from error


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception:
        # Damaged EXIF data has no orientation, but the pixels are intact.
        return image


def _rgb(image: PIL.Image.Image, source: PIL.Image.Image) -> PIL.Image.Image:
    """An upright image as RGB; `source` is the image as it was opened, which knows how its file stores levels."""
    if image.mode in _DEEP_GREY or (image.mode == "I" and source.format == "PPM"):
        return PIL.Image.fromarray(_high_bytes(image, source)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableImageError("signed or 32-bit levels, save it with 8 bits per channel")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        return PIL.Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _high_bytes(image: PIL.Image.Image, source: PIL.Image.Image) -> np.ndarray:
    """The 8 high bits of an image with 16-bit grey levels."""
    levels = np.asarray(image).astype(np.uint16)
    if image.info.get("transparency") is not None:
        levels[levels == image.info["transparency"]] = 0xFFFF
    tags = getattr(source, "tag_v2", {})
    # Pillow returns the levels of a TIFF file as they are stored.
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        levels <<= 4
    if tags.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        levels = ~levels
    return (levels >> 8).astype(np.uint8)


def _shrunk(image: PIL.Image.Image, shorter: int | None) -> PIL.Image.Image:
    side = min(image.size)
    if shorter is None or side <= shorter:
        return image
    width, height = (max(round(length * shorter / side), 1) for length in image.size)
    return image.resize((width, height), PIL.Image.Resampling.BILINEAR)


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of a supported image format."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    # Cameras write MPO files, which begin with a JPEG image.
    return PIL.Image.registered_extensions().get(suffix) in (*FORMATS, "MPO")
