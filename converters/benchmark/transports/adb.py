"""Runs the tool on an Android device through adb."""

import re
import subprocess
from pathlib import Path

from kbnn import files
from kbnn.converters.benchmark.transports.process import MOST_OUTPUT
from kbnn.converters.benchmark.transports.shell import ShellTransport
from kbnn.converters.benchmark.transports.transport import ConnectionLostError
from kbnn.errors import UsageError
from kbnn.printable import printable

_SECONDS = 30.0
_ADVICE = {
    "unauthorized": "unlock it and allow USB debugging",
    "offline": "plug it in again, or 'adb kill-server' and try again",
    "more than one": "name one of 'adb devices': adb:SERIAL",
    "no devices": "plug one in and enable USB debugging, or 'adb connect HOST:PORT'",
}


class AdbTransport(ShellTransport):
    """`adb`, or `adb:SERIAL` if there are several devices; SERIAL may be HOST:PORT.

    Raises:
        UsageError: the serial number is malformed.
    """

    def __init__(self, address: str) -> None:
        # The only folder from which every version of Android lets the shell user run programs.
        super().__init__(address, "/data/local/tmp/kbnn")
        match = re.fullmatch(r"adb:?(?P<serial>(?<=:)\w[\w.:-]*|(?<=:)\[[\da-fA-F:]+\]:\d+)?", address)
        if match is None:
            raise UsageError(f"not an adb target: received '{address}', write adb or adb:SERIAL")
        serial = self._serial = match["serial"] or ""
        self._adb = ["adb", *(["-s", serial] if serial else [])]

    def open(self) -> None:
        # Started separately, so that the server's start-up message is not part of a later answer.
        self._ask(["adb", "start-server"])
        if re.search(r":\d+$", self._serial):
            # Exits with 0 even if nobody answers; the state below tells.
            self._ask(["adb", "connect", self._serial])
        state = self._ask([*self._adb, "get-state"])
        if state != "device":
            advice = next((text for sign, text in _ADVICE.items() if sign in state), "see 'adb devices'")
            raise ConnectionLostError(f"no device for target '{self.name}': {state}; {advice}")
        super().open()

    def _ask(self, command: list[str]) -> str:
        try:
            done = self._call(command, _SECONDS)
        except subprocess.TimeoutExpired:
            return "adb does not answer"
        return printable(" ".join((done.stdout + done.stderr).decode(errors="replace").split()), longest=300)

    def _command(self, script: str) -> list[str]:
        return [*self._adb, "shell", script]

    def _copy_there(self, path: Path, place: str) -> None:
        self._transfer([*self._adb, "push", str(path.resolve()), place], f"send '{path}' to {self.name}")

    def _copy_here(self, place: str) -> bytes:
        with files.scratch() as folder:
            copy = folder / "file"
            command = [*self._adb, "pull", place, str(copy)]
            self._transfer(command, f"fetch '{place}' from {self.name}", largest_file=MOST_OUTPUT)
            return copy.read_bytes()
