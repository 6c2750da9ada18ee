"""The properties and the state that a device reports, and whether a tool can run on it."""

import math

from kbnn.converters.benchmark.program import Executable, Version
from kbnn.converters.benchmark.report import State, Target
from kbnn.converters.benchmark.transports import Transport
from kbnn.errors import KbnnError

# Architecture of a program -> the outputs of `uname -m` on machines that can run it.
_RUNS = {
    "aarch64": ("aarch64", "arm64", "armv8b"),
    "arm": ("armv6l", "armv7l", "armv8l", "aarch64"),
    "x86_64": ("x86_64", "amd64"),
    "x86": ("i386", "i586", "i686", "x86_64"),
    "riscv": ("riscv32", "riscv64"),
}
_RELEASES = "LCE's releases have lce_benchmark_model for aarch64, aarch32 and android_arm64"


def describe(transport: Transport) -> Target:
    """Describes a target before anything runs on it."""
    facts = transport.probe()
    emulated = bool(facts.get("emulator", "").strip("0"))
    return Target(
        name=transport.name,
        description=_description(transport.name, facts),
        emulated=emulated,
        architecture=facts.get("machine"),
        word_bits=_integer(facts.get("word_bits")),
        system=facts.get("system"),
        model=facts.get("model"),
        cores=_integer(facts.get("cores")),
        governor=facts.get("governor"),
        c_library=facts.get("c_library"),
        before=None if emulated else _state(facts),
        after=None,
    )


def state(transport: Transport) -> State:
    """The current state of a target."""
    return _state(transport.probe())


def _description(name: str, facts: dict[str, str]) -> str:
    machine = facts.get("machine", "unknown architecture")
    if name == "qemu":
        return f"emulated {machine}, {facts['emulator']}: shows that the file runs, but not how fast"
    arm = "ARM" if machine.startswith(("aarch64", "arm")) else "not ARM"
    if name == "local":
        return f"this machine ({machine}, {arm})"
    return f"{name} ({facts.get('model', 'unknown model')}, {machine}, {arm})"


def _state(facts: dict[str, str]) -> State:
    memory = _integer(facts.get("memory_available_kb"))
    return State(
        load=_number(facts.get("load")),
        memory_available_bytes=None if memory is None else 1024 * memory,
        temperature_c=_temperature(facts.get("temperatures", "")),
        pi_throttled=_integer(facts.get("pi_throttled")),
        android_thermal_status=_integer(facts.get("android_thermal_status")),
        throttle_count=_integer(facts.get("throttle_count")),
    )


def _temperature(values: str) -> float | None:
    """The hottest sensor, in °C. Sensors report degrees or thousandths of degrees; some are stuck at absurd values."""
    numbers = [number for value in values.split() if (number := _number(value)) is not None]
    degrees = [number / 1000 if abs(number) > 200 else number for number in numbers]
    return max((degree for degree in degrees if 0 < degree < 125), default=None)


def _integer(text: str | None) -> int | None:
    """A count; None for any other text, which a faulty device may report."""
    try:
        value = -1 if text is None else int(text, 0)
    except ValueError:
        return None
    return value if 0 <= value < 2**63 else None


def _number(text: str | None) -> float | None:
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check(program: Executable, target: Target) -> None:
    """Checks that a tool can run on a target.

    Raises:
        KbnnError: the architecture, the word size, the system or the C library do not match.
    """
    for reason in (_wrong_architecture(program, target), _wrong_word(program, target), _wrong_library(program, target)):
        if reason:
            raise KbnnError(f"'{program.path}' cannot run on {target.name}: {reason}")


def _wrong_architecture(program: Executable, target: Target) -> str:
    fitting = _RUNS.get(program.architecture or "", ())
    if not fitting or target.architecture is None or target.architecture in fitting:
        return ""
    here = "; the target 'qemu' emulates it on this machine" if target.name == "local" else ""
    return f"it is for {program.architecture}, the device is {target.architecture}{here}; {_RELEASES}"


def _wrong_word(program: Executable, target: Target) -> str:
    if program.word_bits != 64 or target.word_bits != 32:
        return ""
    return f"it is a 64-bit program and the operating system is 32-bit (on {target.architecture}): install a 64-bit one"


def _wrong_library(program: Executable, target: Target) -> str:
    library = target.c_library
    if not program.loader or library is None:
        return ""
    if program.for_android != library.startswith("bionic"):
        kind, other = ("Android", "another system") if program.for_android else ("glibc", "Android")
        return f"it is for {kind} and the device runs {other}; {_RELEASES}"
    if program.needs_glibc and library.startswith("musl"):
        return f"it needs glibc and the device has {library}: use a distribution with glibc"
    found = _version(library)
    if program.glibc and found and found < program.glibc:
        needed = ".".join(map(str, program.glibc))
        return f"it needs glibc {needed} and the device has {library}: update its operating system"
    return ""


def _version(library: str) -> Version | None:
    name, _, version = library.partition(" ")
    parts = version.split(".")
    if name != "glibc" or len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        return None
    return int(parts[0]), int(parts[1])
