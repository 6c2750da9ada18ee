"""Makes the pictures and described files that the app is tested on: `python android_demo/make_vectors.py`.

The pictures are real: scanned digits from the data set itself, and a photograph that comes with scikit-learn.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from kbnn import datasets, models
from kbnn.converters import Description, android, convert
from kbnn.converters.android import InputSpec

RESOURCES = Path(__file__).parent / "app" / "src" / "test" / "resources"
VECTORS, FILES = RESOURCES / "vectors", RESOURCES / "files"
MEAN, STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.7)


def cases() -> dict[str, tuple[np.ndarray, InputSpec]]:
    """Name -> a picture `(h, w, 3)` and how it is fed."""
    digits = datasets.load("digits")
    scans = {f"digit{k}": (np.repeat(digits.test.images[k], 3, axis=-1), android.input_of(digits)) for k in range(3)}
    photograph = load_sample_image("china.jpg")
    landscape, portrait = photograph[::4, ::4], photograph[100:300:2, 200:330:2]
    return {
        **scans,
        "same_size": (photograph[200:232, 300:332], InputSpec(32, 32, 3, 32, MEAN, STD)),
        "landscape_shrunk": (landscape, InputSpec(32, 32, 3, 32, MEAN, STD)),
        "portrait_shrunk_and_cut": (portrait, InputSpec(32, 36, 3, 40, MEAN, STD)),
        "squeezed": (landscape, InputSpec(32, 28, 3, 36, MEAN, STD, square=True)),
        "grown": (photograph[:9, :7], InputSpec(16, 16, 3, 16, MEAN, STD)),
        "colour_as_luma": (portrait, InputSpec(8, 8, 1, 8, (77.89,), (95.87,))),
    }


def described() -> dict[str, tuple[tuple[int, int, int], Description]]:
    """Name -> the input of a file and its description."""
    colour = Description("tiny", "", "pets", ("cat", "dögs"), (125.0, 120.5, 110.0), (60.0, 61.0, 62.0))
    return {"grey": ((8, 8, 1), Description.of(datasets.load("digits"))), "colour": ((8, 10, 3), colour)}


def main() -> None:
    VECTORS.mkdir(parents=True, exist_ok=True)
    for name, (pixels, spec) in cases().items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(VECTORS / f"{name}.png", optimize=True)
        android.prepare(pixels, spec).astype("<f4").tofile(VECTORS / f"{name}.bin")
        (VECTORS / f"{name}.json").write_text(json.dumps(asdict(spec)) + "\n")
    FILES.mkdir(exist_ok=True)
    for name, (shape, description) in described().items():
        model = models.build("tiny", input_shape=shape, classes=len(description.labels), width=0.25)
        convert(model, FILES / f"{name}.tflite", description=description)


if __name__ == "__main__":
    main()
