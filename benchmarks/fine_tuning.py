"""Measures what starting from trained weights gains on 1,500 photos; writes `results/fine_tuning.csv`.

    python benchmarks/fine_tuning.py --output runs/fine-tuning

CIFAR-10 stands in for a user's photos, without leakage: ResNet-20 is trained on five of its classes (25,000 images),
then on a folder of 300 photos of each of the five others, once from these weights and once from random ones, with the
same recipe and seeds. Both are evaluated on all 5,000 test images of those classes. The weights that ship were trained
on all ten classes and cannot be measured in this way.
"""

import argparse
from pathlib import Path

import numpy as np
import record
from PIL import Image

from kbnn import datasets
from kbnn.datasets import Dataset
from kbnn.training import Recipe, result, train

KNOWN = ("airplane", "automobile", "cat", "deer", "ship")
NEW = ("bird", "dog", "frog", "horse", "truck")
PHOTOS = 300


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--output", type=Path, default=Path("runs/fine-tuning"))
    arguments.add_argument("--pretraining", type=int, default=6, help="epochs on the known classes")
    arguments.add_argument("--epochs", type=int, default=30, help="epochs on the photos")
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--data-dir", type=Path)
    options = arguments.parse_args()

    data = datasets.load("cifar10", validation=0.0, data_dir=options.data_dir)
    recipe = Recipe.of("resnet20", "bnn", epochs=options.pretraining, activation="prelu").changed(
        {"policy": "mixed_bfloat16", "stage.1.learning_rate": 0.01, "data.pad": 4, "data.flip": True}
    )
    known = {split: _of_classes(data, split, KNOWN) for split in ("train", "test")}
    weights = train(recipe, options.output / "known", data=known, resume=True)
    folder = options.output / "photos"
    _write_photos(data, folder)
    for seed in range(options.seeds):
        for start in ("random", "known"):
            given = {"weights": weights.folder} if start == "known" else {"method": "bnn", "activation": "prelu"}
            mine = Recipe.of("resnet20", folder=folder, size=32, epochs=options.epochs, seed=seed, **given)
            run = train(mine, options.output / f"{start}-seed{seed}", resume=True)
            found = result(run)
            row = {
                "network": "resnet20",
                "start": start,
                "pretraining_epochs": options.pretraining if start == "known" else 0,
                "pretraining_top1": f"{result(weights).top1:.4f}" if start == "known" else "",
                "photos": PHOTOS * len(NEW),
                "epochs": options.epochs,
                "first_epoch_validation": f"{run.history()[0]['val_accuracy']:.4f}",
                "test_images": found.samples,
                "test_top1": f"{found.top1:.4f}",
            }
            print(row, flush=True)
            record.append("fine_tuning", [row], seed=seed)


def _of_classes(data: Dataset, split: str, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The images of some classes and their labels, counted in this order."""
    part = getattr(data, split)
    wanted = [data.classes.index(name) for name in classes]
    chosen = np.flatnonzero(np.isin(part.labels, wanted))
    labels = np.array([wanted.index(label) for label in part.labels[chosen]], np.int32)
    return part.images[chosen], labels


def _write_photos(data: Dataset, folder: Path) -> None:
    """Writes the first training images of each new class, and all of its test images."""
    if folder.exists():
        return
    for split, limit in (("train", PHOTOS), ("test", None)):
        images, labels = _of_classes(data, split, NEW)
        for k, name in enumerate(NEW):
            place = folder / split / name
            place.mkdir(parents=True)
            for number, image in enumerate(images[labels == k][:limit]):
                Image.fromarray(image).save(place / f"{number:04}.png")


if __name__ == "__main__":
    main()
