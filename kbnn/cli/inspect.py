"""`kbnn inspect`."""

from pathlib import Path

import click

from kbnn.cli.artifacts import OutputFile
from kbnn.cli.command import Command, json_option, show
from kbnn.errors import KbnnError

_MOST_SHOWN = 10


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--html",
    type=OutputFile("an HTML page"),
    help="Write a page with a drawing of the network and of where its time goes.",
)
@json_option
def command(file: Path, html: Path | None, as_json: bool) -> None:
    """Audit a .tflite file: which convolutions are binary, which are not, and what they cost.

    Instructions are estimated from counts on ARM processors; they are not latencies.

    Exits with status 1 if no convolution is binary, or if one that looks binary silently became float.

    \b
    Example:
      kbnn inspect resnet20.tflite
      kbnn inspect resnet20.tflite --html resnet20.html
      kbnn inspect resnet20.tflite --json
    """
    from kbnn.converters.tflite import flatbuffer
    from kbnn.converters.tflite.audit import audit

    content = flatbuffer.read(file)
    found = audit(content, str(file))
    show(found, as_json)
    if html is not None:
        from kbnn import files
        from kbnn.converters.tflite.audit_page import page

        files.write(html, page(content, file.name, found))
    if found.silent_fallbacks:
        shown = "; ".join(found.silent_fallbacks[:_MOST_SHOWN])
        left_out = len(found.silent_fallbacks) - _MOST_SHOWN
        more = f" and {left_out} more" if left_out > 0 else ""
        raise KbnnError(
            f"{len(found.silent_fallbacks)} layers of '{file}' look binary but are float: {shown}{more}; convert the "
            f"model with kbnn convert, which reports how to fix each layer"
        )
    if not found.binary_convolutions:
        raise KbnnError(f"'{file}' has no binary convolution: it is a plain TensorFlow Lite file")
