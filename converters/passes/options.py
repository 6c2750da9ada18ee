"""The options of a conversion."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kbnn.converters.graph.graph import Limits
from kbnn.errors import unknown

KERNELS = ("grouped", "portable")
WEIGHTS = ("float32", "int8")
DEVICES = ("generic", "pi4", "pi5", "android", "microcontroller")
# Devices without forms of their own for grouped convolutions and real-valued layers.
PLAIN = ("generic", "microcontroller")
# Devices where LCE's tool and runtime use XNNPACK by default. Android's Java interface does not.
WITH_XNNPACK = ("pi4", "pi5")


@dataclass(frozen=True)
class Options:
    """The options of a conversion. They are stored in the file's metadata, so that `verify` can repeat the conversion.

    Attributes:
        kernel: "grouped" keeps a grouped binary convolution as one operator; "portable" splits it for runtimes without
            such a kernel, such as Android's stock library.
        allow_float: binary layers that may become float.
        weights: how the weights of real-valued layers are stored.
        limits: the ranges of the values that are rounded to int8; empty if activations are float.
        passes: names of the passes that made the file, in order; empty for those of this version.
        in_16_bits: with int8 weights, the real-valued layers whose weights are stored in 16 bits.
        in_32_bits: with int8 weights, the real-valued layers whose weights stay float32.
        device: the device that the form of the file is chosen for.
        gathered: the layers whose bias is read through a GATHER.
        hybrid: the layers that are hybrid convolutions.

    Raises:
        UsageError: an unknown kernel, type of weights or device.
    """

    kernel: str = "grouped"
    allow_float: tuple[str, ...] = ()
    weights: str = "float32"
    limits: Mapping[str, Limits] = field(default_factory=dict)
    passes: tuple[str, ...] = ()
    in_16_bits: tuple[str, ...] = ()
    in_32_bits: tuple[str, ...] = ()
    device: str = "generic"
    gathered: tuple[str, ...] = ()
    hybrid: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise unknown("kernel", self.kernel, KERNELS)
        if self.weights not in WEIGHTS:
            raise unknown("type of weights", self.weights, WEIGHTS)
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "Options":
        """The options from a file's metadata; those that this version of kbnn does not know are ignored.

        Raises:
            TypeError, ValueError: the metadata is damaged.
        """
        given = {key: found[key] for key in _KNOWN if key in found}
        # JSON has no tuples.
        given["allow_float"] = tuple(map(str, given.get("allow_float", ())))
        given["passes"] = tuple(map(str, given.get("passes", ())))
        for key in ("in_16_bits", "in_32_bits", "gathered", "hybrid"):
            given[key] = tuple(map(str, given.get(key, ())))
        if len(given["passes"]) > _MOST_PASSES:
            raise ValueError(f"{len(given['passes'])} passes")
        given["limits"] = {
            str(name): (float(low), float(high)) for name, (low, high) in dict(given.get("limits", {})).items()
        }
        if not all(-math.inf < low <= 0 <= high < math.inf and low < high for low, high in given["limits"].values()):
            raise ValueError("limits that do not include zero")
        return Options(**given)


# No pipeline of kbnn has more; a longer list from a damaged file could take forever.
_MOST_PASSES = 100
_KNOWN = tuple(asdict(Options()))
