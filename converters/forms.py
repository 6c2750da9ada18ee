"""The forms in which a network can be deployed: the arguments of `convert` for each, and the twins to compare with.

A bitpacked form is a file that `convert` writes; a twin is the same network in TensorFlow Lite's own operators. Each
form has a name, a command and the name of its file, and writes the file.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias, TypedDict

import numpy as np
import tensorflow as tf

from kbnn.converters import baseline
from kbnn.converters.conversion import convert
from kbnn.converters.passes.options import DEVICES
from kbnn.converters.tflite.metadata import Description

# The device for which everything real-valued becomes int8.
THROUGHOUT = "microcontroller"


class ConvertArguments(TypedDict, total=False):
    """The arguments of `convert` in which forms differ."""

    kernel: str
    weights: str
    device: str


@dataclass(frozen=True)
class Bitpacked:
    """A file that `convert` writes, with its arguments; a calibrated form also needs calibration images.

    `file_name` is the file's name without its suffix.
    """

    is_binary: ClassVar[bool] = True

    name: str
    arguments: ConvertArguments = field(default_factory=lambda: ConvertArguments())
    is_calibrated: bool = False

    @property
    def file_name(self) -> str:
        return _file_name(self.name)

    @property
    def options(self) -> str:
        """The options of `kbnn convert` for this form; empty if it is the default."""
        given = self.arguments
        words = (
            "--kernel portable" if given.get("kernel") == "portable" else "",
            "--int8" if self.is_calibrated else "",
            f"--device {given['device']}" if "device" in given else "",
            f"--weights {given['weights']}" if "weights" in given else "",
        )
        return " ".join(filter(None, words))

    @property
    def command(self) -> str:
        """The command that writes the file."""
        return f"kbnn convert {self.options}".rstrip()

    def write(
        self,
        model: tf.keras.Model,
        path: Path,
        images: np.ndarray,
        calibration: np.ndarray | None,
        description: Description | None = None,
    ) -> None:
        """Writes the file, after verifying it on images.

        Raises:
            ConversionError, UsageError, KbnnError: as `convert`.
        """
        calibration = calibration if self.is_calibrated else None
        convert(model, path, images, calibration=calibration, description=description, **self.arguments)


@dataclass(frozen=True)
class Twin:
    """The network without bitpacking, in float32, or in int8 if it is calibrated.

    An ordinary twin is what one would deploy without binarization: its outputs mean nothing, see `baseline`.
    """

    is_binary: ClassVar[bool] = False
    # Shown instead of options of `kbnn convert`.
    options: ClassVar[str] = "(to compare)"

    name: str
    is_calibrated: bool = False
    is_ordinary: bool = False

    @property
    def file_name(self) -> str:
        return _file_name(self.name)

    @property
    def command(self) -> str:
        """The function that writes the file."""
        return "export_int8" if self.is_calibrated else "export_float"

    def write(
        self,
        model: tf.keras.Model,
        path: Path,
        images: np.ndarray,
        calibration: np.ndarray | None,
        description: Description | None = None,
    ) -> None:
        """Writes the file; `images` are not used, because twins are not verified.

        Raises:
            ConversionError, UsageError, KbnnError: as `export_float` and `export_int8`.
        """
        if not self.is_calibrated:
            baseline.export_float(model, path, description, ordinary=self.is_ordinary)
            return
        given = np.empty(0) if calibration is None else calibration
        baseline.export_int8(model, path, given, description, ordinary=self.is_ordinary)


Form: TypeAlias = Bitpacked | Twin

BINARY = Bitpacked("binary")
INT8_WEIGHTS = Bitpacked("binary, int8 weights", {"weights": "int8"})
INT8 = Bitpacked("binary, int8", {"device": THROUGHOUT}, is_calibrated=True)
FLOAT_TWIN = Twin("twin, float32")
INT8_TWIN = Twin("twin, int8", is_calibrated=True)
# The forms of every binary network, which `deployments` compares by accuracy.
FORMS: tuple[Form, ...] = (BINARY, INT8_WEIGHTS, INT8, FLOAT_TWIN, INT8_TWIN)

# The network as one would deploy it without binarization, which the latencies of its forms are compared with.
ORDINARY = (Twin("float32, not binary", is_ordinary=True), Twin("int8, not binary", True, is_ordinary=True))


def forms_on_devices(is_grouped: bool) -> list[Bitpacked]:
    """All bitpacked forms that may be the fastest on some device: each kernel and precision, and those for a device.

    Args:
        is_grouped: whether the network has grouped binary convolutions, which have two kernels.
    """
    kernels: list[tuple[str, ConvertArguments]] = [("", {})]
    if is_grouped:
        kernels = [("grouped ", {"kernel": "grouped"}), ("portable ", {"kernel": "portable"})]
    found = []
    for prefix, kernel in kernels:
        found += [
            Bitpacked(f"{prefix}float", kernel),
            Bitpacked(f"{prefix}int8 weights", {**kernel, "weights": "int8"}),
            Bitpacked(f"{prefix}int8", kernel, is_calibrated=True),
        ]
    # --int8 keeps float activations where an estimate says so, which a measurement may contradict.
    found.append(Bitpacked("int8 throughout", INT8.arguments, is_calibrated=True))
    for device in DEVICES:
        if device not in ("generic", THROUGHOUT):
            found.append(Bitpacked(f"for {device}", {"device": device}))
            found.append(Bitpacked(f"for {device}, int8 weights", {"device": device, "weights": "int8"}))
    return found


def _file_name(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")
