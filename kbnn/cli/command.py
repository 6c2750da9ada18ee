"""The base of all commands: clean stderr, one-line errors, `--debug`, and results as text or JSON."""

import dataclasses
import json
import os

import click

from kbnn.cli import fail
from kbnn.errors import KbnnError
from kbnn.native_output import held_stderr
from kbnn.printable import printable

_debug_option = click.Option(
    ["--debug"], is_flag=True, help="Show the traceback and the native libraries' log on failure."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")


class Command(click.Command):
    """A command that reports expected failures as one line and an exit status; `--debug` shows the traceback."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *options, help_option = super().get_params(ctx)
        return [*options, _debug_option, help_option]

    def invoke(self, ctx: click.Context) -> object:
        if ctx.params.pop("debug"):
            return super().invoke(ctx)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            return super().invoke(ctx)
        except KbnnError as error:
            return fail(f"{error}{_hint(ctx, error)}", error.exit_status)


def _hint(ctx: click.Context, error: KbnnError) -> str:
    """The command's option for the parameter that an error names."""
    for parameter in ctx.command.params:
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            if option.lstrip("-").replace("-", "_") == error.parameter:
                return f" (here: {option})"
    return ""


def import_tensorflow() -> None:
    """Imports TensorFlow without the messages that its native libraries print on stderr."""
    with held_stderr(show_on_error=True):
        import tensorflow as tf

        # Also resolves the lazily loaded Keras, and with it Larq and kbnn's layers.
        _ = tf.keras.layers
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":
        # TensorFlow warns about retracing when a command trains several networks.
        tf.get_logger().setLevel("ERROR")


def show(result: object, as_json: bool) -> None:
    """Prints a result on stdout, as text or as JSON."""
    text = json.dumps(to_json(result), indent=2, allow_nan=False) if as_json else printable(result, lines=True)
    click.echo(text)


def to_json(value: object) -> object:
    """Converts dataclasses, tuples, paths and NumPy values to JSON values; NaN and infinities become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
