"""What all commands share: clean stderr, one-line errors, `--debug`, and results as a table or as JSON."""

import dataclasses
import json
import os
from typing import Any

import click

from kbnn.cli import fail
from kbnn.errors import KbnnError
from kbnn.native_output import held_stderr

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")


class Command(click.Command):
    """A command whose expected failures are one line and an exit status; `--debug` shows the traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, help="Show the traceback and the native libraries' log on failure.")
        )

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.params.pop("debug"):
            return super().invoke(ctx)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            return super().invoke(ctx)
        except KbnnError as error:
            return fail(str(error), error.exit_status)
        except BrokenPipeError:
            raise
        except OSError as error:
            return fail(f"{error.strerror or error}: received '{error.filename}'; check the path and its rights", 1)


def import_tensorflow() -> Any:
    """TensorFlow, imported without the lines its native parts print on stderr."""
    with held_stderr(show_on_error=True):
        import tensorflow as tf

        # Resolves the lazily loaded Keras as well, and with it Larq and our layers.
        _ = tf.keras.layers
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":
        # A command that trains several networks is warned of tracing as many functions.
        tf.get_logger().setLevel("ERROR")
    return tf


def show(result: Any, as_json: bool) -> None:
    """Prints a result on stdout: as JSON, or as the table that its `__str__` makes."""
    click.echo(json.dumps(to_json(result), indent=2, allow_nan=False) if as_json else str(result))


def to_json(value: Any) -> Any:
    """Plain JSON values of frozen dataclasses, tuples, paths and NumPy scalars; NaN and infinities become null."""
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
