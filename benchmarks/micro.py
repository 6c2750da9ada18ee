"""Flash, RAM, stack and instructions of exported networks on emulated microcontrollers, and equality on the host.

Networks have random weights and the batch statistics of real images, unless a trained run is given for them: cost does
not depend on weights. With `--equality N`, the C program's scores are compared with LCE's interpreter (reference
kernel) on N test images of CIFAR-10. Instructions are counted by the emulator and are no latency.

.venv/bin/python benchmarks/micro.py
.venv/bin/python benchmarks/micro.py --networks resnet20 --run resnet20=runs/resnet20 --equality 10000
"""

import argparse
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cores
import jinja2
import numpy as np
import record
import tensorflow as tf

import kbnn
from kbnn import datasets
from kbnn.converters import Description
from kbnn.converters.c import export, writers
from kbnn.converters.graph.graph import batches
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.passes.int8 import calibrated, in_int8
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.converter import lower
from kbnn.converters.tflite.metadata import with_metadata
from kbnn.converters.verify.verification import inputs_by_name
from kbnn.precision import in_float32
from kbnn.training.run import Run

_CALIBRATION_IMAGES = 128
_PAGE = record.ROOT / "docs" / "microcontrollers.md"
_TEMPLATE = Path(__file__).with_name("micro.md.j2")


@dataclass(frozen=True)
class Network:
    """A network of the registry with its options, and the side of its images."""

    model: str
    options: Mapping[str, Any]
    side: int = 32


# One of each family, at sizes that microcontrollers have memory for.
NETWORKS = {
    "tiny": Network("tiny", {}),
    "resnet20": Network("resnet20", {}),
    "react18": Network("react18", {"width": 0.25}),
    "vgg_small": Network("vgg_small", {"width": 0.25}),
    "bireal18": Network("bireal18", {"width": 0.25}),
    "plain18": Network("plain18", {"width": 0.25}),
    "dorefa_svhn": Network("dorefa_svhn", {"width": 0.25}, 40),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--run", action="append", default=[], metavar="NETWORK=FOLDER", help="a trained run")
    parser.add_argument("--equality", type=int, default=0, metavar="N", help="compare scores on N test images")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    runs = dict(item.split("=", 1) for item in arguments.run)
    for name in [] if arguments.page else arguments.networks:
        with tempfile.TemporaryDirectory() as work:
            measure(name, runs.get(name), Path(work), arguments.equality)
    write_page()


def measure(name: str, run: str | None, work: Path, equality: int) -> None:
    """Exports a network and adds its rows."""
    file, data = _int8(name, run, work)
    images = data.inputs(data.test, max(equality, 8))
    exported = export.export_c(file, work / "net", name="net", calibration=images)
    weights = "trained" if run else "random"
    if equality:
        row = {"network": name, "weights": weights, **_equality(file, work / "net", images[:equality], work)}
        print(row, flush=True)
        record.append("micro_equality", [row])
    for core in cores.CORES:
        if core.missing:
            print(f"{core.name}: {core.missing} is not installed")
            continue
        row = {"network": name, "weights": weights, "core": core.name, **_cost(core, exported, work)}
        print(row, flush=True)
        record.append("micro", [row])


def _int8(name: str, run: str | None, work: Path) -> tuple[Path, Any]:
    """The int8 file of a network, and the data that it is calibrated on."""
    network = NETWORKS[name]
    transform = datasets.Transform(resize=network.side, size=network.side) if network.side != 32 else None
    data = datasets.load("cifar10", **({"transform": transform} if transform else {}))
    calibration = data.inputs(data.train, _CALIBRATION_IMAGES)
    model = Run.open(Path(run)).model() if run else _random(network, calibration)
    path = work / "model.tflite"
    path.write_bytes(_converted(model, calibration, Description.of(data, model=name)))
    return path, data


def _converted(model: tf.keras.Model, calibration: np.ndarray, description: Description) -> bytes:
    """What `convert` writes, without its comparison with Keras: random networks may lose their classes in int8."""
    reference = Reference(in_float32(model))
    graph = deploy(reference, Options())
    limits = calibrated(graph, batches(inputs_by_name(reference, calibration)))
    options = Options(limits=limits)
    file = lower(in_int8(graph, limits), {**description.to_json(), **options.to_json()})
    return with_metadata(file, description)


def _random(network: Network, images: np.ndarray) -> tf.keras.Model:
    """Random weights, with the batch statistics of real images."""
    tf.keras.utils.set_random_seed(0)
    shape = (network.side, network.side, 3)
    model = kbnn.models.build(network.model, input_shape=shape, classes=10, **network.options)
    for _ in range(40):
        model(images, training=True)
    return model


def _cost(core: cores.Core, exported: export.CExport, work: Path) -> dict[str, object]:
    """Flash with -Os, instructions with -O2."""
    folder = Path(exported.folder)
    height, width, channels = exported.input_shape
    buffers = exported.arena_bytes + height * width * channels + exported.classes
    macs = {"binary_macs": exported.binary_macs, "int8_macs": exported.real_macs}
    if buffers + 1024 > core.ram_bytes:
        return {"ram_bytes": buffers, "note": f"more than this board's {core.ram_bytes} bytes of RAM", **macs}
    small = cores.measure(core, folder, exported.name, work, "-Os")
    fast = cores.measure(core, folder, exported.name, work, "-O2")
    stack = max(small.stack, fast.stack)
    return {
        "flash_bytes_small": small.flash,
        "flash_bytes": fast.flash,
        "arena_bytes": exported.arena_bytes,
        "stack_bytes": stack,
        "ram_bytes": buffers + stack,
        "instructions_small": small.instructions,
        "instructions": fast.instructions,
        "instructions_per_mac": f"{fast.instructions / (exported.binary_macs + exported.real_macs):.3f}",
        **macs,
    }


def _equality(file: Path, folder: Path, images: np.ndarray, work: Path) -> dict[str, object]:
    """How many scores of the C program differ from the interpreter's."""
    parsed = flatbuffer.read(file)
    network = writers.write(parsed)
    parts = [export.int8_values(parsed, network, images[k : k + 500]) for k in range(0, len(images), 500)]
    levels, expected = (np.concatenate(column) for column in zip(*parts, strict=True))
    main = work / "main.c"
    main.write_text(
        '#include <stdio.h>\n#include "net.h"\n'
        "static uint32_t arena[NET_ARENA_BYTES / 4];\n"
        "static int8_t image[NET_INPUT_HEIGHT * NET_INPUT_WIDTH * NET_INPUT_CHANNELS], scores[NET_CLASSES];\n"
        "int main(void) {\n"
        "    while (fread(image, 1, sizeof(image), stdin) == sizeof(image)) {\n"
        "        if (net_run(image, scores, arena)) { return 1; }\n"
        "        fwrite(scores, 1, sizeof(scores), stdout);\n    }\n    return 0;\n}\n"
    )
    program = work / "equality"
    sources = [main, folder / "net.c", folder / "kbnn_nn.c"]
    subprocess.run(["gcc", "-std=c99", "-O2", f"-I{folder}", *sources, "-o", program], check=True)
    done = subprocess.run([program], input=levels.tobytes(), capture_output=True, check=True)
    scores = np.frombuffer(done.stdout, np.int8).reshape(expected.shape)
    differences = np.abs(scores.astype(int) - expected.astype(int))
    return {
        "images": len(images),
        "scores_that_differ": int((differences > 0).sum()),
        "largest_difference": int(differences.max()),
    }


def write_page() -> None:
    """docs/microcontrollers.md, its tables from the newest rows."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701, it makes Markdown
    costs = {(row["network"], row["core"]): row for row in record.read("micro")}
    equality = {row["network"]: row for row in record.read("micro_equality")}
    text = environment.from_string(_TEMPLATE.read_text()).render(
        costs=list(costs.values()), equality=list(equality.values())
    )
    _PAGE.write_text(text)


if __name__ == "__main__":
    main()
