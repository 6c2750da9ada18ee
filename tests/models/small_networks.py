"""Every registered network in its smallest form, which keeps every kind of layer and connection."""

from dataclasses import dataclass

import tensorflow as tf

from kbnn import methods, models

# Builder -> image size and width; other builders are tested with their defaults.
SMALL: dict[str, dict[str, object]] = {
    "alexnet": {"input_shape": (31, 31, 3), "width": 1 / 16},
    "compact": {"input_shape": (16, 16, 3), "filters": (32, 64)},
    "dorefa_svhn": {"input_shape": (40, 40, 3), "width": 1 / 4},
    "aresb": {"input_shape": (8, 8, 3), "width": 1 / 2},
    "presb": {"input_shape": (8, 8, 3), "width": 1 / 2},
    "react": {"input_shape": (16, 16, 3), "width": 1 / 8},
    "resnet": {"input_shape": (16, 16, 3), "width": 1 / 8},
    "resnet_cifar": {"input_shape": (8, 8, 3), "width": 1 / 2},
    "vgg_small": {"input_shape": (8, 8, 3), "width": 1 / 8},
}
CLASSES = 3
# Every network gets each modifier at least once; those slow to convert are tested in their paper's networks.
COMPOSED = ("float+relu", "irnet+ml+bma")
COMPOSED_IN = {"siman+code": ("bireal18", "resnet20", "vgg_small"), "xnor+std+ml+bma": ("alexnet", "resnet20")}


@dataclass(frozen=True)
class Network:
    """A registered name with the arguments of its smallest form."""

    name: str
    arguments: dict[str, object]

    def build(self, method: str | methods.Method | None = None, **options: object) -> tf.keras.Model:
        tf.keras.utils.set_random_seed(0)
        return models.build(self.name, method, classes=CLASSES, **{**self.arguments, **options})


def registered() -> list[Network]:
    """Every name, at its own depth."""
    found = []
    for architecture in models.architectures():
        small = dict(SMALL.get(architecture.builder.__name__, {}))
        # As many numbers of filters as the name has stages.
        small.pop("filters", None)
        found.append(Network(architecture.name, small))
    return found


def distinct() -> list[Network]:
    """Every builder with every preset, once: names that differ only in depth count as one.

    Two stages of one block each have every kind of block, with and without downsampling.
    """
    found: dict[str, Network] = {}
    for architecture in models.architectures():
        arguments = dict(SMALL.get(architecture.builder.__name__, {}))
        blocks = architecture.options().get("blocks")
        if blocks is not None:
            arguments["blocks"] = 1 if isinstance(blocks, int) else (1, 1)
        preset = {key: value for key, value in architecture.preset.items() if key not in ("blocks", "filters")}
        found.setdefault(f"{architecture.builder.__name__} {preset}", Network(architecture.name, arguments))
    return list(found.values())


def methods_of(network: Network) -> list[str]:
    """Every base method that the network takes, and compositions of them."""
    bases = models.get(network.name).methods()
    composed = [*COMPOSED, *(name for name, among in COMPOSED_IN.items() if network.name in among)]
    return [*bases, *(name for name in composed if methods.get(name).base in bases)]
