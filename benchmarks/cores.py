"""Emulated microcontrollers: builds C code for them, runs it, and counts instructions and memory.

The emulator executes one instruction per nanosecond of its own time (`-icount shift=0`). Counts are exact and
repeatable. They are not a latency: pipelines, caches and flash decide that.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kbnn.converters.c import export, plan, source, writers
from kbnn.converters.c.plan import Plan
from kbnn.converters.c.writers import Network
from kbnn.converters.tflite.flatbuffer import File

_HERE = Path(__file__).parent / "cores"
KERNELS = Path(export.__file__).parent
# The flags that the README of an export recommends.
OPTIMIZE = "-Os"
_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_SECTIONS = ("-ffunction-sections", "-fdata-sections")
# Instructions of the loop in measure.c that calibrates the clock: two per iteration, and a few around it.
_CALIBRATION_INSTRUCTIONS = 2_000_000


@dataclass(frozen=True)
class Core:
    """A core, the emulated board that has it, and the board's RAM in bytes."""

    name: str
    flags: tuple[str, ...]
    machine: tuple[str, ...]
    ram_bytes: int

    @property
    def is_arm(self) -> bool:
        return self.name.startswith("cortex")

    @property
    def compiler(self) -> str:
        return "arm-none-eabi-gcc" if self.is_arm else "riscv64-unknown-elf-gcc"

    @property
    def emulator(self) -> str:
        return "qemu-system-arm" if self.is_arm else "qemu-system-riscv32"

    @property
    def missing(self) -> str | None:
        """The first program that is not installed; None if all are."""
        programs = (self.compiler, self.emulator)
        return next((program for program in programs if shutil.which(program) is None), None)


def _arm(name: str, machine: str, ram_bytes: int, floats: str = "soft") -> Core:
    """`floats` is the calling convention; the vectors of a Cortex-M55 need "hard" or "softfp"."""
    flags = (f"-mcpu={name}", "-mthumb", f"-mfloat-abi={floats}")
    return Core(name, flags, ("-M", machine, "-semihosting"), ram_bytes)


def _riscv(name: str, march: str) -> Core:
    machine = ("-M", "virt", "-bios", "none", "-cpu", "rv32", "-semihosting-config", "enable=on,target=native")
    return Core(name, (f"-march={march}", "-mabi=ilp32"), machine, 0x400000)


CORES = (
    _arm("cortex-m0", "microbit", 0x4000),
    _arm("cortex-m3", "mps2-an385", 0x400000),
    _arm("cortex-m4", "mps2-an386", 0x400000),
    _arm("cortex-m7", "mps2-an500", 0x400000),
    _arm("cortex-m55", "mps3-an547", 0x80000, "hard"),
    _riscv("rv32imac", "rv32imac_zicsr"),
    _riscv("rv32imac_zba_zbb", "rv32imac_zicsr_zba_zbb"),
)


@dataclass(frozen=True)
class Measurement:
    """Bytes of flash that the network and its kernels add to a program, bytes of stack with the caller's, instructions.

    The stack is measured by painting it before the run.
    """

    flash: int
    stack: int
    instructions: int


def self_test(core: Core, folder: Path, name: str, work: Path) -> str:
    """The output of NAME_test.c on a core."""
    sources = [folder / f"{name}_test.c", folder / f"{name}.c", folder / "kbnn_nn.c"]
    return run(core, build(core, sources, work, hosted=True))


def build(core: Core, sources: list[Path], work: Path, optimize: str = OPTIMIZE, *, hosted: bool = False) -> Path:
    """A program for a core, from sources and objects; `hosted` gives it the emulator's console and files."""
    return _link(core, compile_all(core, sources, work, optimize, hosted=hosted), work / "program.elf", hosted=hosted)


def run(core: Core, program: Path) -> str:
    """What a program prints; it reads and writes files in its own folder."""
    command = [core.emulator, *core.machine, "-nographic", "-icount", "shift=0", "-kernel", program.resolve()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=program.parent)
    return done.stdout + done.stderr


def write_bare(file: File, folder: Path, name: str = "net") -> tuple[Network, Plan]:
    """Writes the C code of a file without labels, pixels and self-test, also for single layers and feature maps."""
    network = writers.write(file)
    planned = plan.plan(network.steps)
    made = source.program(network, planned)
    image, scores = network.input, network.output
    sizes = {
        "ARENA_BYTES": planned.arena_bytes,
        "INPUT_HEIGHT": image.height,
        "INPUT_WIDTH": image.width,
        "INPUT_CHANNELS": image.channels,
        "CLASSES": scores.height * scores.row_bytes,
    }
    header = ["#include <stdint.h>", *(f"#define {name.upper()}_{key} {value}" for key, value in sizes.items())]
    header.append(f"int {name}_run(const int8_t *image, int8_t *scores, void *arena);")
    (folder / f"{name}.h").write_text("\n".join(header) + "\n")
    (folder / f"{name}.c").write_text(
        f'#include "{name}.h"\n#include "kbnn_nn.h"\n{made.constants}\n'
        f"static const kbnn_rows rows[] = {{\n{made.rows}}};\n"
        f"static const kbnn_step steps[] = {{\n{made.steps}}};\n"
        f"static const kbnn_pass passes[] = {{\n{made.passes}}};\n"
        f"int {name}_run(const int8_t *image, int8_t *scores, void *arena) {{\n"
        f"    static const kbnn_network network = {{passes, steps, rows, {made.pass_count}}};\n"
        f"    return kbnn_run(&network, image, scores, arena);\n}}\n"
    )
    for kernel in export.KERNELS:
        shutil.copy(KERNELS / kernel, folder / kernel)
    return network, planned


def measure(core: Core, folder: Path, name: str, work: Path, optimize: str = OPTIMIZE) -> Measurement:
    """Flash, stack and instructions of one run of a network."""
    header = (folder / f"{name}.h").read_text()
    sizes = {key: _number(header, f"{name.upper()}_{key}") for key in ("ARENA_BYTES", "CLASSES")}
    image = [_number(header, f"{name.upper()}_INPUT_{side}") for side in ("HEIGHT", "WIDTH", "CHANNELS")]
    defines = [
        f"-DNETWORK={name}",
        f'-DNETWORK_HEADER="{name}.h"',
        f"-DARENA_BYTES={sizes['ARENA_BYTES']}",
        f"-DCLASSES={sizes['CLASSES']}",
        f"-DIMAGE_BYTES={image[0] * image[1] * image[2]}",
    ]
    harness = [_HERE / "measure.c"]
    network = [folder / f"{name}.c", folder / "kbnn_nn.c"]
    empty = compile_all(core, harness, work, optimize, *defines, "-DEMPTY", f"-I{folder}")
    without = _size(core, _link(core, empty, work / "empty.elf"))
    whole = compile_all(core, [*harness, *network], work, optimize, *defines, f"-I{folder}")
    program = _link(core, whole, work / "measure.elf")
    printed = run(core, program)
    found = re.search(r"ticks (\d+) calibration (\d+) stack (\d+)", printed)
    if found is None:
        raise RuntimeError(f"{core.name} did not finish: {printed[-200:]}")
    ticks, calibration, stack = map(int, found.groups())
    instructions = round(ticks * _CALIBRATION_INSTRUCTIONS / calibration)
    return Measurement(_size(core, program) - without, stack, instructions)


def _number(header: str, name: str) -> int:
    found = re.search(rf"#define {name} (\d+)", header)
    if found is None:
        raise RuntimeError(f"the header does not define {name}")
    return int(found[1])


def compile_all(
    core: Core, sources: list[Path], work: Path, optimize: str = OPTIMIZE, *flags: str, hosted: bool = False
) -> list[Path]:
    """The objects of sources and of the start-up code."""
    startup = _HERE / ("startup_arm.c" if core.is_arm else "startup_riscv.c")
    specs = [] if core.is_arm else ["--specs=picolibc.specs"]
    objects = []
    for path in [startup, *sources]:
        if path.suffix == ".o":
            objects.append(path)
            continue
        objects.append(work / f"{path.stem}.o")
        options = [*core.flags, *specs, *_SECTIONS, *flags, *(["-DHOSTED"] if hosted else [])]
        _call([core.compiler, *options, "-std=c99", optimize, *_WARNINGS, "-c", path, "-o", objects[-1]])
    return objects


def _link(core: Core, objects: list[Path], program: Path, *, hosted: bool = False) -> Path:
    if core.is_arm:
        specs = ["--specs=rdimon.specs" if hosted else "--specs=nosys.specs", "-nostartfiles", "-T", _HERE / "arm.ld"]
        options = [*core.flags, *specs, f"-Wl,--defsym=ram_bytes={core.ram_bytes},--no-warn-rwx-segments"]
    else:
        memory = "__flash=0x80000000,--defsym=__flash_size=0x400000,--defsym=__ram=0x80400000"
        memory += f",--defsym=__ram_size={core.ram_bytes},--defsym=__stack_size=0x4000"
        # The libraries are installed only for the architecture without extensions.
        options = ["--specs=picolibc.specs", "--oslib=semihost", "--crt0=semihost", "-march=rv32imac", "-mabi=ilp32"]
        options.append(f"-Wl,--defsym={memory}")
    _call([core.compiler, *options, "-Wl,--gc-sections", *objects, "-o", program])
    return program


def _size(core: Core, program: Path) -> int:
    """Bytes of code, constants and initial data."""
    tool = core.compiler.replace("-gcc", "-size")
    lines = subprocess.run([tool, program], check=True, capture_output=True, text=True).stdout.splitlines()
    return sum(map(int, lines[1].split()[:2]))


def _call(command: list[object]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-400:]}")
