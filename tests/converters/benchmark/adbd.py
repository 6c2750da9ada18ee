"""The device side of the Android Debug Bridge, as far as `adb shell`, `push` and `pull` need it.

Debian packages adb and its server, but not adbd. With this small replacement, the real client and server can be tested:
commands run on this machine, and `/data/local/tmp` stands for a given folder.
"""

import contextlib
import os
import queue
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

_BANNER = b"device::ro.product.name=test;ro.product.model=Test;ro.product.device=test;features="
_STDOUT, _STDERR, _EXIT = 1, 2, 3
_PIECE = 64 * 1024
_TMP = "/data/local/tmp"


class Daemon:
    """Serves adb servers that `adb connect 127.0.0.1:PORT`, until it is closed.

    `features` are "shell_v2", or "" as before Android 7: one stream for both outputs, and no exit status.
    """

    def __init__(self, folder: Path, programs: Path, features: str = "shell_v2") -> None:
        self.folder = folder
        self.features = features
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Drops all connections, as if the cable had been pulled."""
        for connection in [self.listener, *self.connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()


class _Connection:
    """One adb server: messages in, dispatched to its streams."""

    def __init__(self, daemon: Daemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self.connection = connection
        self.lock = threading.Lock()
        self.streams: dict[int, _Stream] = {}

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                self._dispatch(*self._receive())

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        (number,) = struct.unpack("<I", command)
        header = struct.pack("<4s5I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self.lock, contextlib.suppress(OSError):
            self.connection.sendall(header + data)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, first, second, length, _, _ = struct.unpack("<4s5I", self._exactly(24))
        return command, first, second, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _dispatch(self, command: bytes, theirs: int, ours: int, data: bytes) -> None:
        if command == b"CNXN":
            self.send(b"CNXN", 0x01000001, 256 * 1024, _BANNER + self.daemon.features.encode())
        elif command == b"OPEN":
            stream = _Stream(self, len(self.streams) + 1, theirs)
            self.streams[stream.ours] = stream
            self.send(b"OKAY", stream.ours, theirs)
            threading.Thread(target=stream.serve, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif command == b"WRTE":
            self.streams[ours].arrived.put(data)
            self.send(b"OKAY", ours, theirs)
        elif command == b"OKAY":
            self.streams[ours].taken.release()
        elif command == b"CLSE" and ours in self.streams:
            self.streams[ours].arrived.put(b"")


class _Stream:
    """One service that a client opened."""

    def __init__(self, connection: _Connection, ours: int, theirs: int) -> None:
        self.connection = connection
        self.ours, self.theirs = ours, theirs
        self.arrived: queue.Queue[bytes] = queue.Queue()
        self.taken = threading.Semaphore(0)
        self.pending = b""

    def serve(self, service: str) -> None:
        with contextlib.suppress(EOFError):
            if service.startswith("shell,v2"):
                self._shell(service.partition(":")[2])
            elif service.startswith("shell:"):
                self._old_shell(service.partition(":")[2])
            elif service.startswith("sync:"):
                self._sync()
        self.connection.send(b"CLSE", self.ours, self.theirs)

    def write(self, data: bytes) -> None:
        """Writes, and waits until the other side has acknowledged it, as the protocol requires."""
        for start in range(0, len(data), _PIECE):
            self.connection.send(b"WRTE", self.ours, self.theirs, data[start : start + _PIECE])
            if not self.taken.acquire(timeout=30):
                raise EOFError

    def read(self, count: int) -> bytes:
        while len(self.pending) < count:
            piece = self.arrived.get()
            if not piece:
                raise EOFError
            self.pending += piece
        data, self.pending = self.pending[:count], self.pending[count:]
        return data

    def _run(self, command: str, errors: int) -> subprocess.CompletedProcess[bytes]:
        daemon = self.connection.daemon
        script = command.replace(_TMP, str(daemon.folder))
        return subprocess.run(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=daemon.environment,
        )

    def _old_shell(self, command: str) -> None:
        done = self._run(command, subprocess.STDOUT)
        # The old shell runs in a terminal, which turns a line feed into two characters.
        self.write(done.stdout.replace(b"\n", b"\r\n"))

    def _shell(self, command: str) -> None:
        done = self._run(command, subprocess.PIPE)
        for kind, data in ((_STDOUT, done.stdout), (_STDERR, done.stderr), (_EXIT, bytes([done.returncode & 0xFF]))):
            if data:
                self.write(struct.pack("<BI", kind, len(data)) + data)

    def _sync(self) -> None:
        while True:
            request, length = struct.unpack("<4sI", self.read(8))
            if request == b"QUIT":
                return
            argument = self.read(length).decode().replace(_TMP, str(self.connection.daemon.folder))
            {b"STAT": self._stat, b"SEND": self._accept_file, b"RECV": self._give_file}[request](argument)

    def _stat(self, path: str) -> None:
        try:
            found = Path(path).stat()
            self.write(struct.pack("<4s3I", b"STAT", found.st_mode, found.st_size, int(found.st_mtime)))
        except OSError:
            self.write(struct.pack("<4s3I", b"STAT", 0, 0, 0))

    def _accept_file(self, argument: str) -> None:
        path, _, mode = argument.rpartition(",")
        pieces = list(self._pieces())
        Path(path).write_bytes(b"".join(pieces))
        Path(path).chmod(stat.S_IMODE(int(mode)))
        self.write(struct.pack("<4sI", b"OKAY", 0))

    def _pieces(self) -> Iterator[bytes]:
        while True:
            kind, length = struct.unpack("<4sI", self.read(8))
            if kind == b"DONE":
                return
            yield self.read(length)

    def _give_file(self, path: str) -> None:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            said = str(error).encode()
            self.write(struct.pack("<4sI", b"FAIL", len(said)) + said)
            return
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            self.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        self.write(struct.pack("<4sI", b"DONE", 0))
