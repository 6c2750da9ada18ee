"""The common part of ssh and adb: a POSIX shell on the device."""

import abc
import hashlib
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kbnn.converters.benchmark.transports.process import call
from kbnn.converters.benchmark.transports.transport import Completed, ConnectionLostError, Transport, took_too_long
from kbnn.errors import KbnnError
from kbnn.printable import printable

_SHORT = 30.0
_TRANSFER = 600.0
_STATUS = "kbnn-status:"
# A folder's name identifies this computer and process, so that the next connection can tell whether it is abandoned.
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


class ShellTransport(Transport):
    """Runs commands through a shell on a device.

    Files are stored in one folder there under the name of their hash, so that nothing is sent twice. The tool runs in a
    private folder next to them, which is removed at the end.
    """

    def __init__(self, name: str, store: str) -> None:
        """`store` may contain variables, which the device's shell expands, so it must never come from user input."""
        self.name = name
        self._store_expression = store
        self._store = ""
        self._folder = ""

    def open(self) -> None:
        left = self._folder
        found = self._enter(self._checked(self._opening(), "make a folder").splitlines())
        for folder in [*([left] if left else []), *abandoned(found)]:
            self._clean(folder)

    def close(self) -> None:
        if self._folder and self._clean(self._folder):
            self._folder = ""

    def _opening(self) -> str:
        """A script that makes the private folder, and prints the store, the folders in it and the new one."""
        # A folder that is more than a day old was left by a computer that has not connected again.
        return (
            f'umask 077; mkdir -p "{self._store_expression}" && cd "{self._store_expression}" && '
            "{ find . -name 'run.*' -mtime +0 -prune -exec rm -rf {} + || true; } && pwd -P && "
            f"{{ ls -d run.* 2>/dev/null || true; }} && mktemp -d run.{_HERE}-{os.getpid()}.XXXXXX"
        )

    def _enter(self, lines: Sequence[str]) -> list[str]:
        """Takes the new folder from the script's output; returns the others."""
        # A start-up file of the shell may have printed something before.
        stores = [k for k, line in enumerate(lines) if line.startswith("/")]
        if not stores or not re.fullmatch(r"run\.[\w.-]+", lines[-1]):
            said = printable(" ".join(lines)[-300:])
            raise KbnnError(f"{self.name} answered '{said}' instead of a folder; look at its start-up files")
        self._store = lines[stores[-1]]
        self._folder = f"{self._store}/{lines[-1]}"
        return [f"{self._store}/{line}" for line in lines[stores[-1] + 1 : -1]]

    def _clean(self, folder: str) -> bool:
        """Kills the program that runs in a folder, and removes the folder; returns whether that worked."""
        try:
            self._quick(cleaning(shlex.quote(folder)))
        except KbnnError:
            return False
        return True

    def put(self, path: Path, executable: bool = False) -> str:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        place = f"{self._store}/{digest}"
        quoted, mode = shlex.quote(place), "700" if executable else "600"
        # The device computes the hash, so that a truncated or changed file is sent again.
        if not self._quick(f"sha256sum {quoted} && chmod {mode} {quoted}").stdout.startswith(digest):
            arriving = f"{self._folder}/arriving"
            self._copy_there(path, arriving)
            self._checked(
                f"cd {shlex.quote(self._folder)} && sum=$(sha256sum arriving) && chmod {mode} arriving && "
                f'{{ [ "${{sum%% *}}" = {digest} ] || {{ echo "only a part arrived" >&2; false; }}; }} && '
                f"mv -f arriving {quoted}",
                f"put '{path}'",
            )
        return place

    def run(self, command: Sequence[str], seconds: float) -> Completed:
        # While the program runs, its process id is in the folder, so that it can be killed after a lost connection.
        script = (
            f"cd {shlex.quote(self._folder)} || exit 1; {shlex.join(command)} </dev/null & echo $! >pid; "
            f"wait $!; status=$?; rm -f pid; exit $status"
        )
        try:
            return self._shell(script, seconds)
        except subprocess.TimeoutExpired as error:
            raise took_too_long(command, seconds) from error

    def send(self, path: Path, name: str) -> None:
        self._copy_there(path, f"{self._folder}/{name}")

    def fetch(self, name: str) -> bytes:
        return self._copy_here(f"{self._folder}/{name}")

    @abc.abstractmethod
    def _command(self, script: str) -> list[str]:
        """The local command that runs a script in the device's shell."""

    @abc.abstractmethod
    def _copy_there(self, path: Path, place: str) -> None:
        """Copies a local file to a path on the device."""

    @abc.abstractmethod
    def _copy_here(self, place: str) -> bytes:
        """The content of a file on the device."""

    def _shell(self, script: str, seconds: float) -> Completed:
        """Runs a script. It prints its status as the last line, because not every transport passes the status on.

        Raises:
            subprocess.TimeoutExpired: the script took longer than `seconds`.
            ConnectionLostError: the last line is missing.
        """
        done = self._call(self._command(f"({script}); printf '\\n{_STATUS}%s\\n' $?"), seconds)
        stdout = done.stdout.decode(errors="replace").replace("\r\n", "\n")
        output, mark, status = stdout.rpartition(f"\n{_STATUS}")
        if not mark or not status.strip().isdigit():
            raise ConnectionLostError(f"lost the connection to {self.name}: {_excuse(done)}")
        return Completed(int(status), output, done.stderr.decode(errors="replace").replace("\r\n", "\n"))

    def _quick(self, script: str) -> Completed:
        """Runs a script that must end soon."""
        try:
            return self._shell(script, _SHORT)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLostError(
                f"{self.name} did not answer within {_SHORT:.0f} s; is it still there?"
            ) from error

    def _checked(self, script: str, what: str) -> str:
        done = self._quick(script)
        if done.status:
            raise KbnnError(
                f"cannot {what} on {self.name}: {_shortened(done.stderr)}; check its permissions and free space"
            )
        return done.stdout

    def _transfer(
        self, command: Sequence[str], what: str, content: bytes = b"", largest_file: int | None = None
    ) -> bytes:
        """Runs the local command that copies a file; returns its output."""
        try:
            done = self._call(command, _TRANSFER, content, largest_file)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLostError(
                f"cannot {what}: not done after {_TRANSFER:.0f} s; is {self.name} still there?"
            ) from error
        if done.returncode:
            raise ConnectionLostError(f"cannot {what}: {_excuse(done)}")
        return done.stdout

    def _call(
        self, command: Sequence[str], seconds: float, content: bytes = b"", largest_file: int | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return call(command, seconds, content, largest_file=largest_file)
        except FileNotFoundError as error:
            raise self._missing(command[0]) from error

    def _missing(self, program: str) -> KbnnError:
        return KbnnError(f"'{program}' is not installed; install it to reach {self.name}")


def cleaning(quoted: str) -> str:
    """A script that kills the program that runs in a (quoted) folder, and removes the folder."""
    # If there is a /proc, it tells whether the process id still belongs to that program.
    return (
        f"if [ -s {quoted}/pid ]; then p=$(cat {quoted}/pid); "
        f'if [ ! -e /proc/self/cwd ] || [ "$(readlink /proc/$p/cwd)" = {quoted} ]; then kill -9 "$p"; fi; fi; '
        f"rm -rf {quoted}"
    )


def abandoned(folders: Sequence[str]) -> list[str]:
    """The folders of processes of this computer that have ended."""
    found = []
    for folder in folders:
        match = re.fullmatch(rf".*/run\.{_HERE}-(\d{{1,9}})\.\w+", folder)
        if match and not _runs(int(match[1])):
            found.append(folder)
    return found


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _excuse(done: subprocess.CompletedProcess[bytes]) -> str:
    return _shortened(done.stderr.decode(errors="replace")) or f"status {done.returncode} and no message"


def _shortened(text: str) -> str:
    return printable(" ".join(text[-2000:].split())[-300:])
