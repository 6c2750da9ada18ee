"""The properties that devices report, and the tools that they can run."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kbnn.converters.benchmark import device
from kbnn.converters.benchmark.program import Executable
from kbnn.converters.benchmark.transports import Completed, Transport
from kbnn.converters.benchmark.transports.local import LocalTransport
from kbnn.errors import KbnnError

PI = {
    "machine": "aarch64",
    "system": "Linux 6.6.20+rpt-rpi-v8",
    "word_bits": "64",
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "cores": "4",
    "governor": "ondemand",
    "c_library": "glibc 2.36",
    "memory_available_kb": "3500000",
    "load": "0.12",
    "temperatures": "48686 47000 ",
    "pi_throttled": "0x50000",
}
PHONE = {"machine": "aarch64", "word_bits": "64", "c_library": "bionic 34", "temperatures": "41 -273 200000 35000"}


class Told(Transport):
    """A transport that reports given facts."""

    name = "ssh://pi@raspberrypi"

    def __init__(self, facts: dict[str, str]) -> None:
        self.facts = facts

    def open(self) -> None: ...

    def close(self) -> None: ...

    def put(self, path, executable=False):
        return str(path)

    def send(self, path, name): ...

    def fetch(self, name):
        raise FileNotFoundError(name)

    def run(self, command, seconds):
        return Completed(0, "".join(f"{key}={value}\r\n" for key, value in self.facts.items()), "")


def test_raspberry_pi():
    target = device.describe(Told(PI))
    assert target.description == "ssh://pi@raspberrypi (Raspberry Pi 4 Model B Rev 1.4, aarch64, ARM)"
    assert not target.emulated
    assert (target.cores, target.word_bits, target.governor) == (4, 64, "ondemand")
    assert target.before.temperature_c == pytest.approx(48.686)
    assert target.before.pi_throttled == 0x50000
    assert target.before.memory_available_bytes == 3_500_000 * 1024


def test_sensors_stuck_at_absurd_values_are_left_out():
    assert device.describe(Told(PHONE)).before.temperature_c == 41


def test_a_silent_device_is_all_unknown():
    target = device.describe(Told({}))
    assert target.architecture is None
    assert target.before.load is None
    device.check(Executable(Path("tool"), "aarch64", 64, "/lib/ld-linux-aarch64.so.1", (2, 34)), target)


def test_garbled_values_are_unknown():
    garbled = dict.fromkeys(PI, "??")
    target = device.describe(Told(garbled))
    assert target.cores is None
    assert target.before.temperature_c is None


def test_this_machine():
    with LocalTransport().session() as here:
        target = device.describe(here)
    assert target.architecture == os.uname().machine
    assert target.word_bits == 64
    assert target.cores == len(os.sched_getaffinity(0)) or target.cores == os.cpu_count()
    assert target.before.memory_available_bytes > 0


LCE = Executable(Path("lce_benchmark_model"), "aarch64", 64, "/lib/ld-linux-aarch64.so.1", (2, 34))
ANDROID = replace(LCE, loader="/system/bin/linker64", glibc=None)


@pytest.mark.parametrize(
    ("program", "facts"),
    [
        (LCE, PI),
        (ANDROID, PHONE),
        (replace(LCE, loader="", glibc=None), PHONE),
        (replace(LCE, architecture="arm", word_bits=32), PI),
        (Executable(Path("script")), PI),
    ],
    ids=["pi", "phone", "static", "32-bit tool", "script"],
)
def test_tools_that_can_run(program: Executable, facts: dict[str, str]):
    device.check(program, device.describe(Told(facts)))


@pytest.mark.parametrize(
    ("program", "facts", "message"),
    [
        (replace(LCE, architecture="x86_64"), PI, "it is for x86_64, the device is aarch64"),
        (LCE, PI | {"word_bits": "32"}, "operating system is 32-bit .*install a 64-bit one"),
        (LCE, PI | {"machine": "armv7l", "word_bits": "32"}, "it is for aarch64, the device is armv7l"),
        (LCE, PI | {"c_library": "glibc 2.31"}, "it needs glibc 2.34 and the device has glibc 2.31"),
        (LCE, PI | {"c_library": "musl libc (aarch64)"}, "it needs glibc and the device has musl"),
        (LCE, PHONE, "it is for glibc and the device runs Android"),
        (ANDROID, PI, "it is for Android and the device runs another system"),
    ],
    ids=["architecture", "32-bit userland", "32-bit", "old glibc", "musl", "glibc on Android", "Android on Linux"],
)
def test_tools_that_cannot_run(program: Executable, facts: dict[str, str], message: str):
    with pytest.raises(KbnnError, match=message):
        device.check(program, device.describe(Told(facts)))
