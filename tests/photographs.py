"""Folders of photographs, for tests of what users do with their own images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image


def write(
    folder: Path,
    classes: Sequence[str],
    count: int,
    sizes: Sequence[tuple[int, int]],
    endings: Sequence[str] = ("png",),
    seed: int = 0,
) -> Path:
    """Writes `count` noise images of each class; they have the given heights and widths, and endings, in turn."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = generator.integers(0, 256, (*sizes[k % len(sizes)], 3), np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{k}.{endings[k % len(endings)]}")
    return folder
