"""Stand-ins for the benchmark tool: a C program for any architecture, and scripts that replay captured outputs."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

CAPTURED = Path(__file__).parents[2] / "fixtures" / "lce_benchmark_model"
# As TensorFlow Lite's flag parser prints it: on stderr, with exit status 1.
HELP = "ERROR: usage: ./tool <flags>\nFlags:\n" + "".join(
    f"\t--{name}={default:24}\t{kind}\toptional\t...\n"
    for name, default, kind in (
        ("num_runs", "50", "int32"),
        ("min_secs", "1", "float"),
        ("max_secs", "150", "float"),
        ("num_threads", "-1", "int32"),
        ("warmup_runs", "1", "int32"),
        ("warmup_min_secs", "0.5", "float"),
        ("graph", "", "string"),
        ("enable_op_profiling", "false", "bool"),
        ("use_reference_bconv", "false", "bool"),
        ("use_indirect_bgemm", "false", "bool"),
    )
)


def compile_probe(folder: Path, compiler: str = "cc", *options: str) -> Path:
    """Compiles the C program; skips the test if the compiler is missing."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}: install it (see .ci/packages)")
    program = folder / f"probe-{compiler}{''.join(options)}"
    source = Path(__file__).with_name("probe.c")
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", program, source, "-lm"], check=True)
    return program


def emulated(folder: Path) -> Path:
    """Compiles the C program for ARM; skips the test if it cannot be emulated or compiled."""
    if not shutil.which("qemu-aarch64") and not shutil.which("qemu-aarch64-static"):
        pytest.skip("no qemu-aarch64: install qemu-user (see .ci/packages)")
    return compile_probe(folder, "aarch64-linux-gnu-gcc")


def replay(folder: Path, case: str, profile: str | None = None, status: int = 0, before: str = "") -> Path:
    """A script with the tool's help that prints a captured output, or another one if asked for a profile.

    `before` is shell script that runs before an output is printed.
    """
    tool = folder / f"replay-{case}"
    outputs = {name: shlex.quote(str(CAPTURED / name)) for name in (case, profile or case)}
    (folder / "help").write_text(HELP)
    tool.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*--help*) cat {shlex.quote(str(folder / 'help'))} >&2; exit 1 ;;\n"
        f"*enable_op_profiling=true*) cat {outputs[profile or case]}.stdout ;;\n"
        f"*) {before or ':'}\n cat {outputs[case]}.stdout; cat {outputs[case]}.stderr >&2; exit {status} ;;\n"
        "esac\n"
    )
    tool.chmod(0o700)
    return tool
