"""A machine that the system's ssh reaches."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from kbnn.converters.benchmark.transports.shell import ShellTransport
from kbnn.converters.benchmark.transports.transport import ConnectionLostError
from kbnn.errors import KbnnError, UsageError

# As git and rsync have it: another program, or options, in the place of `ssh`.
VARIABLE = "KBNN_SSH"
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
# No name begins with a dash, which ssh would take for an option.
_ADDRESS = re.compile(
    r"ssh://((?P<user>\w[\w.+-]*)@)?(?P<host>\w[\w.-]*|\[[\da-fA-F:.]+(%\w+)?\])(:(?P<port>\d{1,5}))?/?"
)


class SshTransport(ShellTransport):
    """`ssh://[USER@]HOST[:PORT]`; keys, jumps and all else come from the user's own ssh configuration.

    Raises:
        UsageError: the address is not of that form.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address, "${XDG_CACHE_HOME:-$HOME/.cache}/kbnn")
        self._ssh = shlex.split(os.environ.get(VARIABLE, "ssh"))
        self._address = _arguments(address)
        self._control: Path | None = None

    def open(self) -> None:
        self._hang_up()
        self._dial()
        super().open()

    def close(self) -> None:
        super().close()
        self._hang_up()

    def _dial(self) -> None:
        """One connection that all commands share: keys are exchanged once."""
        self._control = Path(tempfile.mkdtemp(prefix="kbnn-ssh-"))
        log = self._control / "log"
        # Into a file: a pipe would stay open for as long as the connection that goes on in the background.
        with log.open("wb") as errors:
            command = [*self._ssh, "-f", "-N", "-M", "-S", str(self._control / "socket"), *self._address]
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, timeout=60, check=False
                )
            except FileNotFoundError as error:
                raise self._missing(self._ssh[0]) from error
            except subprocess.TimeoutExpired as error:
                raise ConnectionLostError(f"{self.name} did not answer within 60 s; is it there?") from error
        if done.returncode:
            said = " ".join(log.read_text(errors="replace").split())[-300:]
            self._hang_up()
            raise ConnectionLostError(f"cannot reach {self.name}: {said or 'ssh said nothing'}")

    def _hang_up(self) -> None:
        if self._control is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired, KbnnError):
            self._call([*self._ssh, "-S", str(self._control / "socket"), "-O", "exit", *self._address], seconds=10)
        shutil.rmtree(self._control, ignore_errors=True)
        self._control = None

    def _command(self, script: str) -> list[str]:
        shared = ["-S", str(self._control / "socket")] if self._control else []
        # The login shell may be any (fish, csh): sh runs the script.
        return [*self._ssh, *shared, *self._address, f"exec sh -c {shlex.quote(script)}"]

    def _copy_there(self, path: Path, place: str) -> None:
        command = self._command(f"cat >{shlex.quote(place)}")
        self._transfer(command, f"send '{path}' to {self.name}", path.read_bytes())

    def _copy_here(self, place: str) -> bytes:
        return self._transfer(self._command(f"cat {shlex.quote(place)}"), f"fetch '{place}' from {self.name}")


def _arguments(address: str) -> list[str]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(f"not an ssh target: received '{address}', write ssh://user@host or ssh://user@host:port")
    options = [word for option in _OPTIONS for word in ("-o", option)]
    port = ["-p", match["port"]] if match["port"] else []
    user = ["-l", match["user"]] if match["user"] else []
    return [*options, *port, *user, "--", match["host"].strip("[]")]
