"""Transports: the ways to reach a device."""

from kbnn.converters.benchmark.program import Executable
from kbnn.converters.benchmark.transports.adb import AdbTransport
from kbnn.converters.benchmark.transports.local import LocalTransport
from kbnn.converters.benchmark.transports.qemu import QemuTransport
from kbnn.converters.benchmark.transports.ssh import SshTransport
from kbnn.converters.benchmark.transports.transport import Completed, ConnectionLostError, Transport
from kbnn.errors import UsageError, unknown

__all__ = ["Completed", "ConnectionLostError", "Transport", "transport"]


def transport(target: str, program: Executable | None) -> Transport:
    """The transport for the target `local`, `ssh://user@host[:port]`, `adb[:serial]` or `qemu`.

    `program` is the tool that will run there, None for the Python interpreter on this machine.

    Raises:
        UsageError: there is no such target, or the tool cannot run there.
    """
    if target == "local":
        return LocalTransport()
    kind = target.partition(":")[0]
    if kind not in ("ssh", "adb", "qemu") or (kind == "qemu" and target != kind):
        raise unknown("benchmark target", target, ["local", "ssh://user@host", "adb", "adb:SERIAL", "qemu"])
    if program is None:
        raise UsageError(
            f"target '{target}' needs a tool: give the path of LCE's lce_benchmark_model for that device "
            f"(the Python interpreter runs only on this machine)",
            parameter="tool",
        )
    if kind == "ssh":
        return SshTransport(target)
    return AdbTransport(target) if kind == "adb" else QemuTransport(program)
