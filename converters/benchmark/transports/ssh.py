"""Runs the tool on a machine that the system's ssh reaches."""

import contextlib
import os
import queue
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kbnn import files
from kbnn.converters.benchmark.transports.process import end
from kbnn.converters.benchmark.transports.shell import ShellTransport, abandoned, cleaning
from kbnn.converters.benchmark.transports.transport import ConnectionLostError
from kbnn.errors import UsageError
from kbnn.printable import printable

# Another program or options instead of `ssh`, as with GIT_SSH_COMMAND.
VARIABLE = "KBNN_SSH"
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
# No name may begin with a dash, because ssh would treat it as an option.
_ADDRESS = re.compile(
    r"ssh://((?P<user>\w[\w.+-]*)@)?(?P<host>\w[\w.-]*|\[[\da-fA-F:.]+(%\w+)?\])(:(?P<port>\d{1,5}))?/?"
)
_READY = "kbnn-ready"
_DIALING = 60.0
_HANGING_UP = 10.0
# Limits on what start-up files may print before the script does.
_MOST_LINES = 1000
_LONGEST_LINE = 4096
# The path of a socket has at most 108 characters, of which ssh adds 17.
_LONGEST_FOLDER = 80


class SshTransport(ShellTransport):
    """`ssh://[USER@]HOST[:PORT]`; keys, jump hosts and so on come from the user's ssh configuration.

    All commands share one connection. The command of this connection guards the private folder: when the connection
    ends, for whatever reason, the guard kills the program that runs there and removes the folder.

    Raises:
        UsageError: the address is malformed.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address, "${XDG_CACHE_HOME:-$HOME/.cache}/kbnn")
        self._ssh = shlex.split(os.environ.get(VARIABLE, "ssh"))
        self._address = _arguments(address)
        self._control: Path | None = None
        self._scratch = contextlib.ExitStack()
        self._guard: subprocess.Popen[bytes] | None = None
        self._lines: _Lines | None = None

    def open(self) -> None:
        left = self._folder
        self._hang_up()
        others = self._enter(self._dial())
        for folder in {*([left] if left else []), *abandoned(others)}:
            self._clean(folder)

    def close(self) -> None:
        self._hang_up()

    def _dial(self) -> list[str]:
        """Opens the connection; returns what the opening script printed."""
        self._control = self._scratch.enter_context(_control_folder())
        script = self._guarded()
        command = [*self._ssh, "-M", "-o", "ControlPersist=no", *self._socket(), *self._address, _shell(script)]
        with (self._control / "log").open("wb") as log:
            try:
                self._guard = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
            except FileNotFoundError as error:
                self._hang_up()
                raise self._missing(self._ssh[0]) from error
        self._lines = _Lines(self._guard.stdout)
        lines = self._lines.until(_READY, _DIALING)
        if lines is None:
            said = (self._control / "log").read_bytes()[-2000:].decode(errors="replace")
            self._hang_up()
            why = printable(" ".join(said.split())[-300:]) or f"no answer within {_DIALING:.0f} s"
            raise ConnectionLostError(f"cannot reach {self.name}: {why}")
        return lines

    def _guarded(self) -> str:
        """A script that runs the opening script, waits until the connection ends, and cleans up."""
        # Neither a hangup nor a broken pipe may kill the guard before it has cleaned up.
        return (
            f"trap '' HUP TERM PIPE; opened=$({self._opening()}) || exit 1; echo \"$opened\"; echo {_READY}; "
            f'cd "{self._store_expression}"; run="$(pwd -P)/$(echo "$opened" | tail -n 1)"; cat >/dev/null; '
            + cleaning('"$run"')
        )

    def _hang_up(self) -> None:
        """Ends the connection; the guard at the other end cleans up."""
        guard, self._guard = self._guard, None
        if guard is not None:
            with contextlib.suppress(OSError):
                if guard.stdin is not None:
                    guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.wait(_HANGING_UP)
            end(guard)
        if self._lines is not None:
            self._lines.join(_HANGING_UP)
            self._lines = None
        self._scratch.close()
        self._control = None

    def _socket(self) -> list[str]:
        return ["-S", str(self._control / "socket")] if self._control else []

    def _command(self, script: str) -> list[str]:
        if self._guard is None or self._guard.poll() is not None:
            raise ConnectionLostError(f"lost the connection to {self.name}")
        # If the shared connection is gone, ssh would open another one; a failing proxy prevents that.
        return [*self._ssh, "-o", "ProxyCommand=false", *self._socket(), *self._address, _shell(script)]

    def _copy_there(self, path: Path, place: str) -> None:
        command = self._command(f"cat >{shlex.quote(place)}")
        self._transfer(command, f"send '{path}' to {self.name}", path.read_bytes())

    def _copy_here(self, place: str) -> bytes:
        return self._transfer(self._command(f"cat {shlex.quote(place)}"), f"fetch '{place}' from {self.name}")


class _Lines:
    """Reads lines from a pipe, with limits on their number, their length and the time."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._found: queue.Queue[str | None] = queue.Queue()
        if pipe is None:
            raise RuntimeError("the program has no pipe to read from")
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def join(self, seconds: float) -> None:
        """Waits until the pipe has ended."""
        self._reader.join(seconds)

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError), pipe:
            for _ in range(_MOST_LINES):
                line = pipe.readline(_LONGEST_LINE)
                if not line:
                    break
                self._found.put(line.decode(errors="replace").rstrip("\r\n"))
        self._found.put(None)

    def until(self, last: str, seconds: float) -> list[str] | None:
        """The lines before the line `last`; None if that does not come in time."""
        lines: list[str] = []
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._found.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if line is None:
                return None
            if line == last:
                return lines
            lines.append(line)


def _shell(script: str) -> str:
    """A command that runs a script in sh, as the login shell may be another one, such as fish or csh."""
    return f"exec sh -c {shlex.quote(script)}"


@contextlib.contextmanager
def _control_folder() -> Iterator[Path]:
    """A private folder with a path that is short enough for a socket."""
    with files.scratch() as folder:
        if len(str(folder)) <= _LONGEST_FOLDER:
            yield folder
            return
    with files.scratch(Path("/tmp")) as folder:  # noqa: S108, the system's own folder may have a longer path
        yield folder


def _arguments(address: str) -> list[str]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(f"not an ssh target: received '{address}', write ssh://user@host or ssh://user@host:port")
    options = [word for option in _OPTIONS for word in ("-o", option)]
    port = ["-p", match["port"]] if match["port"] else []
    user = ["-l", match["user"]] if match["user"] else []
    return [*options, *port, *user, "--", match["host"].strip("[]")]
