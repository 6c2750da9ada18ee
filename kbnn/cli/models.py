"""`kbnn models`."""

import dataclasses
import inspect
import re
import sys
from typing import Any

import click

from kbnn import tables
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True)
class Row:
    """A network in the list."""

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    method: str
    summary: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """The registered networks."""

    models: tuple[Row, ...]

    def __str__(self) -> str:
        rows = [(row.name, _size(row.input_shape), row.classes, row.method, row.summary) for row in self.models]
        return tables.render(("name", "input", ">classes", "method", ""), rows)


@dataclasses.dataclass(frozen=True)
class Details:
    """One network: what it takes, and what its docstring says."""

    name: str
    summary: str
    published: dict[str, str]
    input_shape: tuple[int, int, int]
    classes: int
    method: str
    methods: tuple[str, ...]
    refuses: dict[str, str]
    options: dict[str, Any]
    description: str

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.summary}",
            f"by default input {_size(self.input_shape)}, {self.classes} classes, method {self.method}",
            f"methods: {', '.join(self.methods)}, and modifiers",
            *(f"not {base}: {reason}" for base, reason in self.refuses.items()),
            f"options: {', '.join(f'{option}={default!r}' for option, default in self.options.items())}",
            *(f"published top-1 on {data}: {top1}" for data, top1 in self.published.items()),
            "",
            self.description,
        ]
        return "\n".join(lines)


@click.command(cls=Command)
@click.argument("name", default="*")
@click.option("--cost", is_flag=True, help="Count storage and multiplications, layer by layer.")
@click.option("--input", "input_shape", metavar="HxWxC", help="Size of the images, such as 32x32x3.")
@click.option("--classes", type=int, help="Number of classes.")
@click.option("--method", help="What makes it binary.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the network; repeatable.")
@click.option("--rule", default="bireal", show_default=True, help="Which paper's way to count: bireal or presb.")
@json_option
def command(
    name: str,
    cost: bool,
    input_shape: str | None,
    classes: int | None,
    method: str | None,
    options: tuple[str, ...],
    rule: str,
    as_json: bool,
) -> None:
    """List the networks whose names match NAME, tell about one, or count what it costs.

    \b
    Example:
      kbnn models
      kbnn models "presb*"
      kbnn models resnet20
      kbnn models --cost bireal18 --input 224x224x3
      kbnn models --cost resnet20 --method xnor+ml --option shortcut_type=A
    """
    shape = _parse_shape(input_shape)
    settings = dict(_parse_option(option) for option in options)
    if cost and _is_pattern(name):
        raise UsageError("what to count is not clear: give one NAME, see 'kbnn models'")
    if not cost and (shape or classes or method or settings):
        raise UsageError("--input, --classes, --method and --option say what to count: give --cost too")
    import_tensorflow()
    from kbnn import accounting
    from kbnn.models import architectures, build, get

    if cost:
        show(accounting.count(build(name, method, shape, classes, **settings), rule), as_json)
    elif _is_pattern(name):
        show(_listing(name, list(architectures(name))), as_json)
    else:
        show(_details(get(name)), as_json)


def _listing(pattern: str, found: list[Any]) -> Listing:
    if not found:
        raise UsageError(f"no model's name matches: received '{pattern}', see 'kbnn models'")
    return Listing(tuple(Row(a.name, a.input_shape, a.classes, a.method, a.summary) for a in found))


def _details(architecture: Any) -> Details:
    return Details(
        architecture.name,
        architecture.summary,
        architecture.published,
        architecture.input_shape,
        architecture.classes,
        architecture.method,
        tuple(architecture.methods()),
        architecture.refuses,
        architecture.options(),
        inspect.getdoc(architecture.builder) or "",
    )


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _parse_shape(text: str | None) -> tuple[int, int, int] | None:
    """`224x224x3` as numbers."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if not match:
        raise UsageError(f"--input is HEIGHTxWIDTHxCHANNELS, such as 32x32x3: received '{text}'")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def _parse_option(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, the value as TOML or else as plain text: `width=0.5`, `blocks=[3, 4, 6, 3]`, `stem=cifar`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--option is KEY=VALUE, such as width=0.5: received '{text}'")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
