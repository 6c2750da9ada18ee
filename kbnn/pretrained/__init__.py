"""Trained weights that ship with kbnn, as a start for training.

>>> model = kbnn.models.build("resnet20", weights="cifar10")
>>> kbnn.pretrained.get("resnet20-bnn-cifar10").test_top1

Each network is a file of packed weights (see `kbnn.weights.pack`), named by its SHA-256 hash. `index.json` records the
network, its training, and its accuracy, which was measured with the packed weights.
"""

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kbnn import files
from kbnn.errors import KbnnError, UsageError, unknown

INDEX = "index.json"


@dataclass(frozen=True)
class Pretrained:
    """A trained network: its architecture and options, its training, and its accuracy.

    The weights are from epoch `epochs` of `planned_epochs`. `test_top1` (0 to 1) is the accuracy of the packed weights
    on the whole test set, `latent_top1` that of the weights before packing. The network was trained on
    `(pixel - mean) / std` per channel.
    """

    name: str
    path: Path
    sha256: str
    size_bytes: int
    network: str
    method: str
    options: Mapping[str, object]
    dataset: str
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: str
    epochs: int
    planned_epochs: int
    seed: int
    test_images: int
    test_top1: float
    latent_top1: float
    trained_at: str
    packed_at: str
    date: str


def names() -> list[str]:
    """The sorted names of the trained networks."""
    return sorted(_index())


def get(name: str) -> Pretrained:
    """A trained network by its name; its file is checked against its hash.

    Raises:
        UsageError: an unknown name; the closest names are suggested.
        KbnnError: the file is missing or damaged.
    """
    index = _index()
    if name not in index:
        raise unknown("trained weights", name, index)
    return _checked(index[name])


def all_networks() -> list[Pretrained]:
    """All trained networks, sorted by name, without reading their files."""
    return [network for _, network in sorted(_index().items())]


def find(network: str | None, wanted: str, method: str | None = None) -> Pretrained | None:
    """The trained weights of a network, by the name of a data set or their own name; None if there are none.

    If there are several, those of `method` are preferred, then the most accurate ones.

    Args:
        network: name of the network; None for any.
        wanted: name of a data set or of the weights.
        method: preferred method.
    """
    found = [
        entry for entry in all_networks() if network in (None, entry.network) and wanted in (entry.name, entry.dataset)
    ]
    found.sort(key=lambda entry: (entry.method == method, entry.test_top1))
    return _checked(found[-1]) if found else None


def no_such(network: str | None, wanted: str) -> UsageError:
    """The error for weights that are neither a name nor a path."""
    of = f" of {network}" if network else ""
    every = all_networks()
    mine = [entry for entry in every if network in (None, entry.network)]
    what = f"none ship for {network}; there are" if every and not mine else "there are"
    return UsageError(
        f"no trained weights '{wanted}'{of}, and no such path: {what} "
        f"{', '.join(f'{entry.name} (of {entry.network} on {entry.dataset})' for entry in mine or every)}"
    )


def _checked(entry: Pretrained) -> Pretrained:
    if not files.is_intact(entry.path, entry.sha256):
        raise KbnnError(f"trained weights '{entry.name}' are damaged: '{entry.path}' is missing or changed; reinstall")
    return entry


def _index() -> dict[str, Pretrained]:
    """The networks by name. Entries have the attributes of `Pretrained`, with a file's name instead of its path."""
    networks = {}
    for name, row in json.loads((_folder() / INDEX).read_text()).items():
        path = _folder() / row.pop("file")
        for key in ("input_shape", "classes", "mean", "std"):
            row[key] = tuple(row[key])
        networks[name] = Pretrained(name=name, path=path, **row)
    return networks


def _folder() -> Path:
    return Path(str(importlib.resources.files("kbnn.pretrained")))
