"""The commands of the benchmark tool, and the meaning of its failures."""

import hashlib
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from kbnn.converters.benchmark import python_tool
from kbnn.converters.benchmark.program import Executable
from kbnn.converters.benchmark.report import BenchmarkOptions, Tool
from kbnn.converters.benchmark.transports import Completed, Transport
from kbnn.converters.tflite import lce
from kbnn.errors import KbnnError, UsageError, unknown
from kbnn.printable import printable

KERNEL_FLAGS = {
    "default": (),
    "indirect": ("--use_indirect_bgemm=true",),
    "reference": ("--use_reference_bconv=true",),
}
PYTHON = "python"
# The tool stops warm-up and measurement after this time each, whatever the number of runs.
MAX_SECONDS = 150
_PLAIN = "this is a plain TensorFlow Lite tool without LCE's operators; use lce_benchmark_model of LCE's releases"
# Flags that only the driver may set.
_OWN_FLAGS = frozenset(
    [
        "graph",
        "num_threads",
        "num_runs",
        "warmup_runs",
        "use_indirect_bgemm",
        "use_reference_bconv",
        "enable_op_profiling",
        "help",
        "runtime",
        "input_layer",
        "input_layer_shape",
        "input_layer_value_files",
        "output_filepath",
        "dry_run",
    ]
)
_GROUPED = r"Grouped binary convolutions are not supported"
_NOT_GROUPED = (
    "this kernel does not support grouped binary convolutions; use the indirect kernel, or convert the model to its "
    "portable form, which has one convolution per group"
)
_MOST_TEXT = 2**16
# Messages of a tool, its loader or its shell, with their meanings.
_SAYINGS = (
    (_GROUPED, _NOT_GROUPED),
    (r"not a valid Flatbuffer", "the file is damaged or cut off; convert or copy it again"),
    (r"unresolved custom op: Lce(Quantize|Dequantize|Bconv2d|BMaxPool2d)\b", _PLAIN),
    (r"version `(GLIBC_[\d.]+)' not found", "the device's C library is too old for it; update its operating system"),
)
# Messages of a shell that cannot start a program; the status is 126 or 127.
_NOT_STARTED = (
    (r"[Ee]xec format error|cannot execute binary", "it is for another architecture; take the one for this device"),
    (r"not found|No such file", "its loader is missing there: it is for another operating system"),
    (r"[Pp]ermission denied", "it is not allowed to run there; is its folder mounted 'noexec'?"),
)


@dataclass(frozen=True)
class ToolCommand:
    """The tool on the device: the command that starts it, and its flags."""

    words: tuple[str, ...]
    flags: frozenset[str]
    path: str

    def measure(self, graph: str, settings: BenchmarkOptions, profile: bool = False) -> list[str]:
        """The command that measures a file; it sets every flag that matters, instead of relying on defaults."""
        wanted = [
            f"--graph={graph}",
            f"--num_threads={settings.threads}",
            f"--warmup_runs={settings.warmup}",
            f"--num_runs={settings.runs}",
            *KERNEL_FLAGS[settings.kernel],
            *(f"--{name}={value}" for name, value in settings.flags.items()),
        ]
        # Half a second of warm-up lets the clock of a phone's processor rise.
        limits = [f"--max_secs={MAX_SECONDS}", "--min_secs=0", "--warmup_min_secs=0.5"]
        wanted += [limit for limit in limits if self.knows(limit) and _name(limit) not in settings.flags]
        return [*self.words, *wanted, *(["--enable_op_profiling=true"] if profile else [])]

    def knows(self, flag: str) -> bool:
        """Whether the help of the tool lists a flag."""
        return _name(flag) in self.flags


def _name(flag: str) -> str:
    return flag.split("=")[0].removeprefix("--")


def install(transport: Transport, program: Executable | None) -> ToolCommand:
    """Copies the tool to the device, and reads its flags from its help.

    Raises:
        KbnnError: the tool does not run there, or is another kind of program.
    """
    words: tuple[str, ...]
    if program is None:
        # -I: what it imports does not depend on the working directory or on environment variables.
        words = (sys.executable, "-I", python_tool.__file__, f"--runtime={lce.runtime_path()}")
        path = PYTHON
    else:
        words, path = (transport.put(program.path, executable=True),), str(program.path)
    done = transport.run([*words, "--help"], seconds=60)
    flags = frozenset(re.findall(r"^\s*--(\w+)[= ]", f"{done.stdout[:_MOST_TEXT]}\n{done.stderr[:_MOST_TEXT]}", re.M))
    if not {"graph", "num_runs", "num_threads", "warmup_runs"} <= flags:
        # The tool's `--help` exits with 1.
        reason = explain(done) if done.status not in (0, 1) or not flags else "it does not have the flags of one"
        raise KbnnError(f"'{path}' does not work as a benchmark tool on {transport.name}: {reason}")
    return ToolCommand(words, flags, path)


def check_kernel(command: ToolCommand, kernel: str) -> None:
    """Checks that the tool has a kernel.

    Raises:
        KbnnError: the tool does not have the flag that selects the kernel.
    """
    if not all(command.knows(flag) for flag in KERNEL_FLAGS[kernel]):
        raise KbnnError(f"'{command.path}' cannot select the {kernel} kernel: {_PLAIN}, or the default kernel")


def check_flags(command: ToolCommand, flags: Mapping[str, str]) -> None:
    """Checks the flags that a user passes to the tool.

    Raises:
        UsageError: a flag that the driver sets itself, or that the tool does not have.
    """
    for name, value in flags.items():
        if name in _OWN_FLAGS:
            raise UsageError(f"the flag '{name}' is set by the benchmark itself: received {name}={value}, leave it out")
        if not command.knows(name):
            raise unknown(f"flag of '{command.path}'", name, command.flags - _OWN_FLAGS)


def is_grouped_refusal(done: Completed) -> bool:
    """Whether the tool failed because its kernel does not support grouped binary convolutions."""
    return bool(re.search(_GROUPED, f"{done.stderr[-_MOST_TEXT:]}\n{done.stdout[-_MOST_TEXT:]}"))


def explain(done: Completed) -> str:
    """The meaning of a failure and what to do, in one line."""
    return printable(_explained(done))


def _explained(done: Completed) -> str:
    said = f"{done.stderr[-_MOST_TEXT:]}\n{done.stdout[-_MOST_TEXT:]}"
    for pattern, meaning in (*_SAYINGS, *(_NOT_STARTED if done.status in (126, 127) else ())):
        if match := re.search(pattern, said):
            return meaning if match.lastindex is None else f"{meaning} ({match[1]})"
    if crash := _signal(done.status):
        return f"it crashed ({crash}); the file is damaged, or needs more than the tool offers"
    errors = re.findall(r"^ERROR: (.*?)(?:\. |\.?$)", said, re.MULTILINE)
    if errors:
        return f"{errors[0][:300]}; 'kbnn inspect' lists the file's operators"
    return f"it ended with status {done.status} and printed '{' '.join(said.split())[-200:]}'"


def _signal(status: int) -> str:
    """The signal that ended a program, from the status: its negative number, or in a shell 128 plus its number."""
    try:
        return signal.Signals(-status if status < 0 else status - 128).name
    except ValueError:
        return ""


def identify(program: Executable | None) -> Tool:
    """The file of the tool and its hash; for the Python interpreter that is LCE's native library.

    Raises:
        KbnnError: LCE is not installed.
    """
    path = program.path if program else lce.runtime_path()
    return Tool(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
