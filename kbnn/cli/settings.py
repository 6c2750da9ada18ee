"""Settings of recipes on the command line: KEY=VALUE, and KEY=VALUE,VALUE for several."""

from typing import Any

import click

from kbnn.errors import UsageError

set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting: stage.1.epochs=30"
)


def parsed(settings: tuple[str, ...]) -> dict[str, Any]:
    """Settings by key; a value is TOML, or a plain word."""
    from kbnn.training.recipe import parse_value

    return {key: parse_value(value) for key, value in _pairs("--set stage.1.epochs=30", settings)}


def several(settings: tuple[str, ...]) -> dict[str, list[Any]]:
    """Values by key: of `model.penalty=1e-5,1e-4`, or of words with commas between them."""
    from kbnn.training.recipe import parse_value

    found = {}
    for key, text in _pairs("--over seed=0,1,2", settings):
        values = parse_value(f"[{text}]")
        found[key] = values if isinstance(values, list) else [parse_value(word.strip()) for word in text.split(",")]
    return found


def _pairs(example: str, settings: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"cannot set '{key}': give KEY=VALUE, as in {example}")
    return [(key.strip(), value.strip()) for key, _, value in pairs]
