"""The `kbnn` command. Each subcommand is a module here, which imports its dependencies when it runs."""

import errno
import importlib
import io
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

import kbnn
from kbnn.native_output import lossy_stderr
from kbnn.printable import printable

# Name of each command -> its one-line help. The module `kbnn.cli.NAME` (with underscores for dashes) defines `command`.
# Listed here so that `kbnn --help` does not import the modules.
COMMANDS = {
    "demo": "Train, convert, verify and benchmark a small network on real digits, then write a report.",
    "train": "Train a network, or resume an interrupted run.",
    "recipes": "List the recipes of the papers' tables with the figures printed there.",
    "sweep": "Train every recipe of a grid, or resume, and tabulate.",
    "evaluate": "Accuracy of a run, a Keras model or a .tflite file on the held-out test set, class by class.",
    "predict": "Classify pictures with a run, a Keras model or a .tflite file.",
    "convert": "Convert a trained model to a bitpacked .tflite file, or report why that is not possible.",
    "inspect": "Audit a .tflite file: which convolutions are binary, which are not, and what they cost.",
    "verify": "Compare a .tflite file with the Keras model it came from, bit by bit and layer by layer.",
    "benchmark": "Measure the latency of .tflite files, on this machine or on a device.",
    "export-c": "Write a network as C for microcontrollers, equal bit for bit to its int8 file.",
    "export-android": "Write a trained model and its float32 and int8 twins as assets of the Android app.",
    "models": "List the networks.",
    "analyze": "Analyze a network's binary layers: entropy, quantization error, weights, training.",
    "reproduce": "Compute or train a table of the papers, and compare it with the printed one.",
}


class Commands(click.Group):
    """Imports commands when they are called, and reports usage errors as one line on stderr with exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"kbnn.cli.{cmd_name.replace('-', '_')}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from kbnn.errors import unknown

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(str(unknown("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: object,
    ) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            # Terminals in other encodings than UTF-8 lack the lines of tables, and some names.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        # The messages of a training must not end it when its terminal is gone.
        with lossy_stderr():
            self._run(args, prog_name, complete_var, windows_expand_args, extra)

    def _run(
        self,
        args: Sequence[str] | None,
        prog_name: str | None,
        complete_var: str | None,
        windows_expand_args: bool,
        extra: Mapping[str, object],
    ) -> NoReturn:
        """Runs a command and ends with its exit status; errors are one line on stderr."""
        try:
            status = super().main(
                args, prog_name, complete_var, False, windows_expand_args=windows_expand_args, **extra
            )
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "kbnn"
            fail(f"{error.format_message().rstrip('.')}; see '{path} --help'", 2)
        except click.ClickException as error:
            fail(error.format_message(), 2)
        except click.Abort:
            fail(
                "interrupted; saved files are kept (resume a training with --resume, a sweep by calling it again)",
                130,
            )
        except OSError as error:
            if "--debug" in (sys.argv if args is None else args):
                raise
            fail(_reason(error), 1)
        sys.exit(status if isinstance(status, int) else 0)


def _reason(error: OSError) -> str:
    """An error of the operating system as one line."""
    what = "the system refused an operation" if error.filename is None else f"cannot access '{error.filename}'"
    if error.filename is None and error.errno == errno.ENOSPC:
        # Errors in writing files name them.
        what = "cannot print the result"
    return f"{what}: {error.strerror or error}; check the path, its permissions and the free space"


def fail(message: str, status: int) -> NoReturn:
    """Ends the process with one line on stderr."""
    click.echo(f"error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(status)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kbnn.__version__, prog_name="kbnn")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Practical binary neural networks: train, convert, verify, measure.

    \b
    Example:
      kbnn demo
      kbnn train --model resnet20 --method bireal --dataset cifar10 --epochs 2
      kbnn train siman-resnet20-cifar10
      kbnn convert runs/resnet20-bireal-cifar10 -o resnet20.tflite
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)
