"""What ssh and adb have in common: a POSIX shell at the other end."""

import abc
import hashlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kbnn.converters.benchmark.transports.transport import Completed, ConnectionLostError, Transport, took_too_long
from kbnn.errors import KbnnError

_SHORT = 30.0
_TRANSFER = 600.0
_STATUS = "kbnn-status:"


class ShellTransport(Transport):
    """Runs commands through a shell on a device.

    Files live in one folder there under the name of their hash, so that nothing is sent twice; the tool runs in a
    private folder beside them, which is removed at the end.
    """

    def __init__(self, name: str, store: str) -> None:
        """`store` may hold variables, which the shell there expands; so it must never come from outside."""
        self.name = name
        self._store_expression = store
        self._store = ""
        self._folder = ""

    def open(self) -> None:
        self.close()
        # A day old is what a lost connection kept from being removed.
        lines = self._checked(
            f'umask 077; mkdir -p "{self._store_expression}" && cd "{self._store_expression}" && '
            "{ find . -name 'run.*' -mtime +0 -prune -exec rm -rf {} + || true; } && pwd && mktemp -d run.XXXXXX",
            "make a folder",
        ).splitlines()
        if len(lines) < 2 or not lines[-2].startswith("/") or not lines[-1].startswith("run."):
            raise KbnnError(f"{self.name} answered '{' '.join(lines)}' instead of a folder; look at its start-up files")
        # A start-up file may have printed something before.
        self._store, self._folder = lines[-2], f"{lines[-2]}/{lines[-1]}"

    def close(self) -> None:
        if not self._folder:
            return
        folder = shlex.quote(self._folder)
        try:
            self._quick(f'if [ -s {folder}/pid ]; then kill "$(cat {folder}/pid)"; fi; rm -rf {folder}')
        except KbnnError:
            return
        self._folder = ""

    def put(self, path: Path, executable: bool = False) -> str:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        place = f"{self._store}/{digest}"
        quoted, mode = shlex.quote(place), "700" if executable else "600"
        # The hash is computed there: a file that was cut off or changed is sent again.
        if not self._quick(f"sha256sum {quoted} && chmod {mode} {quoted}").stdout.startswith(digest):
            arriving = f"{self._folder}/arriving"
            self._copy_there(path, arriving)
            self._checked(
                f"cd {shlex.quote(self._folder)} && sum=$(sha256sum arriving) && chmod {mode} arriving && "
                f'{{ [ "${{sum%% *}}" = {digest} ] || {{ echo "only a part came" >&2; false; }}; }} && '
                f"mv -f arriving {quoted}",
                f"put '{path}'",
            )
        return place

    def run(self, command: Sequence[str], seconds: float) -> Completed:
        # The process id lies in the folder while the program runs, for `close` to stop what a lost connection left.
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
        """The local command that has the device's shell run a script."""

    @abc.abstractmethod
    def _copy_there(self, path: Path, place: str) -> None:
        """Copies a file there."""

    @abc.abstractmethod
    def _copy_here(self, place: str) -> bytes:
        """The content of a file there."""

    def _shell(self, script: str, seconds: float) -> Completed:
        """Runs a script; the last line of its output is its status, whatever the transport makes of that.

        Raises:
            subprocess.TimeoutExpired: it took longer than `seconds`.
            ConnectionLostError: that last line did not come.
        """
        done = self._call(self._command(f"({script}); printf '\\n{_STATUS}%s\\n' $?"), seconds)
        stdout = done.stdout.decode(errors="replace").replace("\r\n", "\n")
        output, mark, status = stdout.rpartition(f"\n{_STATUS}")
        if not mark or not status.strip().isdigit():
            raise ConnectionLostError(f"lost the connection to {self.name}: {self._excuse(done)}")
        return Completed(int(status), output, done.stderr.decode(errors="replace").replace("\r\n", "\n"))

    def _quick(self, script: str) -> Completed:
        """A script that must answer soon."""
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
                f"cannot {what} on {self.name}: {' '.join(done.stderr.split())}; check its rights and space"
            )
        return done.stdout

    def _transfer(self, command: Sequence[str], what: str, content: bytes = b"") -> bytes:
        """Runs the local command that copies a file; returns its output."""
        try:
            done = self._call(command, _TRANSFER, content)
        except subprocess.TimeoutExpired as error:
            raise ConnectionLostError(
                f"cannot {what}: no end after {_TRANSFER:.0f} s; is {self.name} there?"
            ) from error
        if done.returncode:
            raise ConnectionLostError(f"cannot {what}: {self._excuse(done)}")
        return done.stdout

    def _call(self, command: Sequence[str], seconds: float, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(command, capture_output=True, input=content, timeout=seconds, check=False)
        except FileNotFoundError as error:
            raise self._missing(command[0]) from error

    def _missing(self, program: str) -> KbnnError:
        return KbnnError(f"'{program}' is not installed; install it to reach {self.name}")

    @staticmethod
    def _excuse(done: subprocess.CompletedProcess[bytes]) -> str:
        said = " ".join(done.stderr.decode(errors="replace").split())
        return said[-300:] or f"status {done.returncode} and no word"
