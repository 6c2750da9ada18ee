"""Emulated microcontrollers: builds exported networks for them, runs self-tests, counts instructions and memory.

The emulator executes one instruction a nanosecond of its own time (`-icount shift=0`): counts are exact and repeatable,
and say nothing about latency, which pipelines, caches and flash decide.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent / "cores"
_ARM = ("-mthumb", "-mfloat-abi=soft")
_SECTIONS = ("-ffunction-sections", "-fdata-sections")
# Of the loop that the clock is calibrated with, measure.c: two instructions a turn, and a few around it.
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
        """The program that is not installed."""
        programs = (self.compiler, self.emulator)
        return next((program for program in programs if shutil.which(program) is None), None)


def _arm(name: str, machine: str, ram_bytes: int) -> Core:
    return Core(name, (f"-mcpu={name}", *_ARM), ("-M", machine, "-semihosting"), ram_bytes)


def _riscv(name: str, march: str) -> Core:
    machine = ("-M", "virt", "-bios", "none", "-cpu", "rv32", "-semihosting-config", "enable=on,target=native")
    return Core(name, (f"-march={march}", "-mabi=ilp32"), machine, 0x400000)


CORES = (
    _arm("cortex-m0", "microbit", 0x4000),
    _arm("cortex-m3", "mps2-an385", 0x400000),
    _arm("cortex-m4", "mps2-an386", 0x400000),
    _arm("cortex-m7", "mps2-an500", 0x400000),
    _arm("cortex-m55", "mps3-an547", 0x80000),
    _riscv("rv32imac", "rv32imac_zicsr"),
    _riscv("rv32imac_zba_zbb", "rv32imac_zicsr_zba_zbb"),
)


@dataclass(frozen=True)
class Measurement:
    """`flash` is what the network and its kernels add to a program; `stack` is painted and includes its caller's."""

    flash: int
    stack: int
    instructions: int


def self_test(core: Core, folder: Path, name: str, work: Path) -> str:
    """What NAME_test.c prints on a core."""
    sources = [folder / f"{name}_test.c", folder / f"{name}.c", folder / "kbnn_nn.c"]
    program = _link(core, _compiled(core, sources, work, "-O2", hosted=True), work / "test.elf")
    return _emulated(core, program)


def measure(core: Core, folder: Path, name: str, work: Path, optimize: str = "-O2") -> Measurement:
    """Flash, stack and instructions of one run of an exported network."""
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
    empty = _compiled(core, harness, work, optimize, *defines, "-DEMPTY", f"-I{folder}")
    without = _size(core, _link(core, empty, work / "empty.elf"))
    whole = _compiled(core, [*harness, *network], work, optimize, *defines, f"-I{folder}")
    program = _link(core, whole, work / "measure.elf")
    printed = _emulated(core, program)
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


def _compiled(
    core: Core, sources: list[Path], work: Path, optimize: str, *flags: str, hosted: bool = False
) -> list[Path]:
    startup = _HERE / ("startup_arm.c" if core.is_arm else "startup_riscv.c")
    specs = [] if core.is_arm else ["--specs=picolibc.specs"]
    objects = []
    for source in [startup, *sources]:
        objects.append(work / f"{source.stem}.o")
        options = [*core.flags, *specs, *_SECTIONS, *flags, *(["-DHOSTED"] if hosted else [])]
        _call([core.compiler, *options, "-std=c99", optimize, "-Wall", "-Wextra", "-c", source, "-o", objects[-1]])
    return objects


def _link(core: Core, objects: list[Path], program: Path) -> Path:
    hosted = "test" in program.name
    if core.is_arm:
        specs = ["--specs=rdimon.specs" if hosted else "--specs=nosys.specs", "-nostartfiles", "-T", _HERE / "arm.ld"]
        options = [*core.flags, *specs, f"-Wl,--defsym=ram_bytes={core.ram_bytes},--no-warn-rwx-segments"]
    else:
        memory = "__flash=0x80000000,--defsym=__flash_size=0x400000,--defsym=__ram=0x80400000"
        memory += f",--defsym=__ram_size={core.ram_bytes},--defsym=__stack_size=0x4000"
        # The libraries are found by an architecture without extensions.
        options = ["--specs=picolibc.specs", "--oslib=semihost", "--crt0=semihost", "-march=rv32imac", "-mabi=ilp32"]
        options.append(f"-Wl,--defsym={memory}")
    _call([core.compiler, *options, "-Wl,--gc-sections", *objects, "-o", program])
    return program


def _size(core: Core, program: Path) -> int:
    """Bytes of code, constants and initial data."""
    tool = core.compiler.replace("-gcc", "-size")
    lines = subprocess.run([tool, program], check=True, capture_output=True, text=True).stdout.splitlines()
    return sum(map(int, lines[1].split()[:2]))


def _emulated(core: Core, program: Path) -> str:
    command = [core.emulator, *core.machine, "-nographic", "-icount", "shift=0", "-kernel", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


def _call(command: list[object]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-400:]}")
