"""Flash, RAM, stack and instructions of C code on emulated microcontrollers, and its equality with LCE's interpreter.

`costs` measures networks on every core, `layers` single layers on Cortex-M4 and M55, both with the flags that an
export's README recommends. `equality` compares the C program's scores on this machine with LCE's interpreter
(reference kernel) on test images of CIFAR-10. Networks have random weights and the batch statistics of real images,
unless a trained run is given: cost does not depend on the weights. Instructions are counted by the emulator and are not
a latency. Every command adds rows to results/ and rewrites docs/microcontrollers.md.

.venv/bin/python benchmarks/micro.py costs
.venv/bin/python benchmarks/micro.py layers
.venv/bin/python benchmarks/micro.py equality --images 10000
.venv/bin/python benchmarks/micro.py costs --networks resnet20 --run resnet20=runs/resnet20

With `--work DIR`, int8 files are kept in that folder and used again, so that a command can resume and needs TensorFlow
only once.
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

from kbnn.converters.c import export, writers
from kbnn.converters.tflite import flatbuffer

_CHUNK = 250
_PAGE = record.ROOT / "docs" / "microcontrollers.md"
_TEMPLATE = Path(__file__).with_name("micro.md.j2")
# The core whose cost at -O2 is measured too, and the cores that layers are measured on.
_COMPARED = "cortex-m4"
_LAYER_CORES = ("cortex-m4", "cortex-m55")
# Networks for microcontrollers and the int8 network that they are compared with; cores with instructions for int8, and
# without.
_SMALL = ("resnet8-int8", "compact32", "resnet20", "compact64")
_SMALL_CORES = ("cortex-m4", "cortex-m3", "rv32imac")


@dataclass(frozen=True)
class Network:
    """A network of the registry with its options, the side of its images, and its method unless it is the default."""

    model: str
    options: Mapping[str, Any]
    side: int = 32
    method: str | None = None


# One of each family, at sizes that microcontrollers have memory for.
NETWORKS = {
    "tiny": Network("tiny", {}),
    "resnet20": Network("resnet20", {}),
    "compact32": Network("compact32", {}),
    "compact64": Network("compact64", {}),
    "react18": Network("react18", {"width": 0.25}),
    "vgg_small": Network("vgg_small", {"width": 0.25}),
    "bireal18": Network("bireal18", {"width": 0.25}),
    "plain18": Network("plain18", {"width": 0.25}),
    "presb10": Network("presb10", {"width": 0.25}),
    # With the 1x1 shortcut of PresB-Net, as measured.
    "aresb10": Network("aresb10", {"width": 0.25, "block_shortcut": "binary"}),
    "alexnet": Network("alexnet", {"width": 0.25}),
    "dorefa_svhn": Network("dorefa_svhn", {"width": 0.25}, 40),
    # MLPerf Tiny's network for image classification, which has no binary layers.
    "resnet8-int8": Network("resnet20", {"blocks": 1, "shortcuts": "res", "shortcut_type": "B"}, method="float+relu"),
}


@dataclass(frozen=True)
class Layer:
    """A convolution on `side` x `side` x `channels`, padded to the same size."""

    side: int
    channels: int
    filters: int
    kernel_size: int
    is_binary: bool
    is_depthwise: bool = False


# The layers of ResNet-20, and wider ones. A binary layer includes signs, padding and batch normalization.
LAYERS = {
    "binary 3x3, 16 to 16 channels, 32x32": Layer(32, 16, 16, 3, True),
    "binary 3x3, 32 to 32 channels, 16x16": Layer(16, 32, 32, 3, True),
    "binary 3x3, 64 to 64 channels, 8x8": Layer(8, 64, 64, 3, True),
    "binary 3x3, 128 to 128 channels, 4x4": Layer(4, 128, 128, 3, True),
    "int8 3x3 stem, 3 to 16 channels, 32x32": Layer(32, 3, 16, 3, False),
    "int8 3x3 stem, 3 to 64 channels, 32x32": Layer(32, 3, 64, 3, False),
    "int8 1x1 shortcut, 16 to 32 channels, 16x16": Layer(16, 16, 32, 1, False),
    "int8 1x1 shortcut, 32 to 64 channels, 8x8": Layer(8, 32, 64, 1, False),
    "int8 1x1 shortcut, 64 to 128 channels, 4x4": Layer(4, 64, 128, 1, False),
    "int8 depthwise 3x3, 32 channels, 16x16": Layer(16, 32, 32, 3, False, is_depthwise=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["costs", "layers", "equality", "page"])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--run", action="append", default=[], metavar="NETWORK=FOLDER", help="a trained run")
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--cores", nargs="*", default=[core.name for core in cores.CORES])
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps int8 files and exports, and uses them again")
    parser.add_argument("--images", type=int, default=10000, metavar="N", help="test images of `equality`")
    arguments = parser.parse_args()
    runs = dict(item.split("=", 1) for item in arguments.run)
    with tempfile.TemporaryDirectory() as scratch:
        kept = arguments.work or Path(scratch)
        for name in arguments.layers if arguments.what == "layers" else []:
            measure_layer(name, _folder(kept / "layers" / name.replace(" ", "_").replace(",", "")), arguments.cores)
        for name in arguments.networks if arguments.what in ("costs", "equality") else []:
            work = _folder(kept / name)
            if arguments.what == "costs":
                measure_network(name, runs.get(name), work, arguments.cores)
            else:
                compare(name, runs.get(name), arguments.images, work)
    write_page()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def measure_network(name: str, run: str | None, work: Path, chosen: list[str]) -> None:
    """Exports a network and adds a row per core."""
    file = _network_file(name, run, work)
    exported = export.export_c(file, work / "net", name="net") if NETWORKS[name].method is None else _bare(file, work)
    for core in cores.CORES:
        if core.name not in chosen:
            continue
        if core.missing:
            print(f"{core.name}: {core.missing} is not installed")
            continue
        about = {"network": name, "weights": "trained" if run else "random", "core": core.name}
        _add("micro", {**about, **_cost(core, exported, work)})


def _bare(file: Path, work: Path) -> export.CExport:
    """The C code of a network without binary layers, which `export_c` refuses."""
    network, plan = cores.write_bare(flatbuffer.read(file), _folder(work / "net"))
    image = network.input
    return export.CExport(
        folder=str(work / "net"),
        name="net",
        constant_bytes=0,
        arena_bytes=plan.arena_bytes,
        binary_macs=sum(step.binary_macs for step in network.steps),
        real_macs=sum(step.real_macs for step in network.steps),
        classes=network.output.channels,
        input_shape=(image.height, image.width, image.channels),
        test_images=0,
    )


def measure_layer(name: str, work: Path, chosen: list[str]) -> None:
    """Adds a layer's rows."""
    path = work / "layer.tflite"
    if not path.exists():
        import micro_networks

        path.write_bytes(micro_networks.layer_file(LAYERS[name]))
    network, _ = cores.write_bare(flatbuffer.read(path), work)
    (step,) = network.steps
    macs = step.binary_macs + step.real_macs
    for core in cores.CORES:
        if core.missing is None and core.name in chosen and core.name in _LAYER_CORES:
            measured = cores.measure(core, work, "net", work)
            row = {
                "layer": name,
                "core": core.name,
                "flags": f"gcc {cores.OPTIMIZE}",
                "instructions": measured.instructions,
            }
            per_mac = f"{measured.instructions / macs:.3f}"
            _add("micro_layers", {**row, "macs": macs, "instructions_per_mac": per_mac, "kernel": step.kernel})


def compare(name: str, run: str | None, count: int, work: Path) -> None:
    """Adds a row that says how many scores of the C program differ from the interpreter's."""
    import micro_networks

    file = _network_file(name, run, work)
    data = micro_networks.data(NETWORKS[name].side)
    images = data.inputs(data.test, count)
    exported = export.export_c(file, work / "net", name="net", calibration=images[:8])
    row = {"network": name, "weights": "trained" if run else "random", "binary_macs": exported.binary_macs}
    _add("micro_equality", {**row, **_differences(file, work / "net", images, work)})


def _network_file(name: str, run: str | None, work: Path) -> Path:
    """The int8 file of a network, made if it is not there yet."""
    path = work / "model.tflite"
    if not path.exists():
        import micro_networks

        path.write_bytes(micro_networks.network_file(name, NETWORKS[name], run))
    return path


def _add(name: str, row: dict[str, object]) -> None:
    print(row, flush=True)
    record.append(name, [row])


def _cost(core: cores.Core, exported: export.CExport, work: Path) -> dict[str, object]:
    """Flash, RAM and instructions of one run of a network."""
    folder = Path(exported.folder)
    height, width, channels = exported.input_shape
    buffers = exported.arena_bytes + height * width * channels + exported.classes
    macs = {"binary_macs": exported.binary_macs, "int8_macs": exported.real_macs}
    if buffers + 1024 > core.ram_bytes:
        return {"ram_bytes": buffers, "note": f"more than this board's {core.ram_bytes} bytes of RAM", **macs}
    measured = cores.measure(core, folder, exported.name, work)
    row = {
        "flags": f"gcc {cores.OPTIMIZE}",
        "flash_bytes": measured.flash,
        "arena_bytes": exported.arena_bytes,
        "stack_bytes": measured.stack,
        "ram_bytes": buffers + measured.stack,
        "instructions": measured.instructions,
        "instructions_per_mac": f"{measured.instructions / (exported.binary_macs + exported.real_macs):.3f}",
        **macs,
    }
    if core.name == _COMPARED:
        fast = cores.measure(core, folder, exported.name, work, "-O2")
        row |= {"flash_bytes_o2": fast.flash, "instructions_o2": fast.instructions}
    return row


_MAIN = """
#include <stdio.h>
#include "net.h"
static uint32_t arena[NET_ARENA_BYTES / 4];
static int8_t image[NET_INPUT_HEIGHT * NET_INPUT_WIDTH * NET_INPUT_CHANNELS], scores[NET_CLASSES];
int main(void) {
    while (fread(image, 1, sizeof(image), stdin) == sizeof(image)) {
        if (net_run(image, scores, arena)) { return 1; }
        fwrite(scores, 1, sizeof(scores), stdout);
    }
    return 0;
}
"""


def _differences(file: Path, folder: Path, images: np.ndarray, work: Path) -> dict[str, object]:
    """Runs both on the same images, in parts, so that neither holds all of them."""
    parsed = flatbuffer.read(file)
    network = writers.write(parsed)
    main = work / "main.c"
    main.write_text(_MAIN)
    program = work / "equality"
    sources = [main, folder / "net.c", folder / "kbnn_nn.c"]
    subprocess.run(["gcc", "-std=c99", "-O2", f"-I{folder}", *sources, "-o", program], check=True)
    differ, largest, classes = 0, 0, set[int]()
    for k in range(0, len(images), _CHUNK):
        levels, expected = export.int8_values(parsed, network, images[k : k + _CHUNK])
        done = subprocess.run([program], input=levels.tobytes(), capture_output=True, check=True)
        scores = np.frombuffer(done.stdout, np.int8).reshape(expected.shape)
        differences = np.abs(scores.astype(int) - expected.astype(int))
        differ += int((differences > 0).sum())
        largest = max(largest, int(differences.max()))
        classes |= set(expected.argmax(-1).tolist())
    return {
        "images": len(images),
        "classes_predicted": len(classes),
        "scores_that_differ": differ,
        "largest_difference": largest,
    }


def write_page() -> None:
    """docs/microcontrollers.md, its tables from the newest rows."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701, it makes Markdown
    costs = {(row["network"], row["core"], row["weights"]): row for row in record.read("micro")}
    layers = {(row["layer"], row["core"]): row for row in record.read("micro_layers")}
    equality = {(row["network"], row["weights"]): row for row in record.read("micro_equality")}
    text = environment.from_string(_TEMPLATE.read_text()).render(
        costs=list(costs.values()),
        layers=list(layers.values()),
        equality=list(equality.values()),
        small=[
            costs.get((name, core, "trained")) or costs[name, core, "random"]
            for core in _SMALL_CORES
            for name in _SMALL
        ],
    )
    _PAGE.write_text(text)


if __name__ == "__main__":
    main()
