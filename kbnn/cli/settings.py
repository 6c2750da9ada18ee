"""Options of several commands: settings of recipes (KEY=VALUE), and rows or variants by name (--only)."""

import fnmatch
from collections.abc import Sequence

import click

from kbnn.errors import UsageError, unknown

set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting: stage.1.epochs=30"
)
only_option = click.option(
    "--only", metavar="NAME,NAME", help="Only these: names or patterns such as 'r2/*', separated by commas."
)
# The name of `reproduce --only` in version 0.1.
rows_option = click.option("--rows", hidden=True)


def chosen(kind: str, names: Sequence[str], only: str | None) -> list[str]:
    """The names that `--only` selects, in their original order; all of them if it is not given.

    Raises:
        UsageError: a name or pattern matches nothing; close names are suggested.
    """
    if only is None:
        return list(names)
    patterns = [pattern.strip() for pattern in only.split(",")]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise unknown(kind, pattern, names)
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def parsed(settings: tuple[str, ...]) -> dict[str, object]:
    """Settings by key; values are TOML, or else plain words.

    Raises:
        UsageError: a key is given twice with different values, or without a value.
    """
    from kbnn.training.recipe import parse_value

    found: dict[str, object] = {}
    for key, text in _pairs("--set stage.1.epochs=30", settings):
        value = parse_value(text)
        if found.setdefault(key, value) != value:
            raise UsageError(f"cannot set '{key}' twice: received {found[key]!r} and {value!r}, give one of them")
    return found


def several(settings: tuple[str, ...]) -> dict[str, list[object]]:
    """Lists of values by key, from settings such as `model.penalty=1e-5,1e-4`.

    Raises:
        UsageError: a key is given twice, or without values.
    """
    from kbnn.training.recipe import parse_value

    found: dict[str, list[object]] = {}
    for key, text in _pairs("--over seed=0,1,2", settings):
        if key in found:
            raise UsageError(f"cannot vary '{key}' twice: give all its values at once, as in --over seed=0,1,2")
        values = parse_value(f"[{text}]")
        found[key] = values if isinstance(values, list) else [parse_value(word.strip()) for word in text.split(",")]
        if len({str(value) for value in found[key]}) < len(found[key]):
            raise UsageError(f"cannot vary '{key}' over equal values: received {text}, give each once")
    return found


def _pairs(example: str, settings: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"cannot set '{key}': give KEY=VALUE, as in {example}")
    return [(key.strip(), value.strip()) for key, _, value in pairs]
