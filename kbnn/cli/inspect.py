"""`kbnn inspect`."""

from pathlib import Path

import click

from kbnn.cli.command import Command, json_option, show
from kbnn.errors import KbnnError


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with the network drawn, coloured by bits.")
@json_option
def command(file: Path, html: Path | None, as_json: bool) -> None:
    """Audit a .tflite file: which convolutions are binary, which are not, what they cost.

    Exit status 1 when no convolution is binary, or one that looks 1-bit silently became float.

    \b
    Example:
      kbnn inspect resnet20.tflite
      kbnn inspect resnet20.tflite --html resnet20.html
      kbnn inspect resnet20.tflite --json
    """
    from kbnn.converters import inspect

    audit = inspect(file)
    show(audit, as_json)
    if html is not None:
        from kbnn.converters.tflite.audit_page import write_page

        write_page(file, html)
    if audit.silent_fallbacks:
        raise KbnnError(
            f"{len(audit.silent_fallbacks)} layers of '{file}' look 1-bit and are float: "
            f"{'; '.join(audit.silent_fallbacks)}; convert with kbnn convert, which says how to mend each"
        )
    if not audit.binary_convolutions:
        raise KbnnError(f"'{file}' holds no binary convolution: it is a plain TensorFlow Lite file")
