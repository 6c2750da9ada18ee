"""The options of a conversion."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

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

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, object]) -> "Options":
        """The options from a file's metadata; those that this version of kbnn does not know are ignored.

        Raises:
            TypeError, ValueError: the metadata is damaged.
        """
        passes, limits = _words(found, "passes"), found.get("limits", {})
        if len(passes) > _MOST_PASSES:
            raise ValueError(f"{len(passes)} passes")
        if not isinstance(limits, Mapping):
            raise ValueError("limits without names")
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in limits.items()}
        if not all(-math.inf < low <= 0 <= high < math.inf and low < high for low, high in ranges.values()):
            raise ValueError("limits that do not include zero")
        default = Options()
        return Options(
            kernel=str(found.get("kernel", default.kernel)),
            allow_float=_words(found, "allow_float"),
            weights=str(found.get("weights", default.weights)),
            limits=ranges,
            passes=passes,
            in_16_bits=_words(found, "in_16_bits"),
            in_32_bits=_words(found, "in_32_bits"),
            device=str(found.get("device", default.device)),
            gathered=_words(found, "gathered"),
            hybrid=_words(found, "hybrid"),
        )


# No pipeline of kbnn has more; a longer list from a damaged file could take forever.
_MOST_PASSES = 100


def _words(found: Mapping[str, object], key: str) -> tuple[str, ...]:
    """The texts of a list in JSON; none if the key is missing."""
    value = found.get(key, ())
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key}: not a list")
    return tuple(map(str, value))
