"""`kbnn models`."""

import dataclasses
import fnmatch
import inspect
import re
import sys
from typing import TYPE_CHECKING, TypedDict

import click

from kbnn import tables
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import UsageError
from kbnn.pretrained import Pretrained

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


if TYPE_CHECKING:
    from kbnn.models.registry import Architecture


class ModelRow(TypedDict):
    """A network in the list; `published` has the papers' accuracies by data set."""

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    method: str
    summary: str
    published: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Fit:
    """A network with its costs: the size of weights in kB (packed 1-bit kernels, the rest in float32), and MACs.

    `trained` has the accuracies of the weights and files that ship, by name.
    """

    name: str
    method: str
    kilobytes: float
    binary_macs: int
    real_macs: int
    published: dict[str, str]
    trained: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Fits:
    """The networks that fit a budget, smallest first, and the reasons why the others do not."""

    input_shape: tuple[int, int, int]
    classes: int | None
    models: tuple[Fit, ...]
    refused: dict[str, str]

    def __str__(self) -> str:
        rows = [
            (
                fit.name,
                fit.method,
                f"{fit.kilobytes:.1f}",
                _millions(fit.binary_macs),
                _millions(fit.real_macs),
                ", ".join(f"{data} {top1}" for data, top1 in fit.published.items()),
                ", ".join(f"{name.removeprefix(f'{fit.name}-')} {top1:.1%}" for name, top1 in fit.trained.items()),
            )
            for fit in self.models
        ]
        columns = ("name", "method", ">kB", ">binary MACs (M)", ">real MACs (M)", "published top-1 (%)", "trained here")
        title = f"input {_size(self.input_shape)}: {len(rows)} of {len(rows) + len(self.refused)} networks fit"
        reasons = "\n".join(f"not {name}: {reason}" for name, reason in self.refused.items())
        return "\n\n".join(part for part in (tables.render(columns, rows, title), reasons) if part)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}"


@dataclasses.dataclass(frozen=True)
class ModelListing:
    """The registered networks."""

    models: tuple[ModelRow, ...]

    def __str__(self) -> str:
        rows = [
            (row["name"], _size(row["input_shape"]), row["classes"], row["method"], row["summary"])
            for row in self.models
        ]
        return tables.render(("name", "input", ">classes", "method", ""), rows)


@dataclasses.dataclass(frozen=True)
class PretrainedListing:
    """The trained weights that ship."""

    weights: tuple[Pretrained, ...]

    def __str__(self) -> str:
        rows = [
            (
                each.name,
                each.method,
                _size(each.input_shape),
                len(each.classes),
                each.recipe,
                f"{each.epochs}/{each.planned_epochs}",
                f"{each.test_top1:.2%}",
                f"{each.size_bytes / 1000:.1f}",
                each.sha256[:12],
            )
            for each in self.weights
        ]
        columns = ("weights", "method", "input", ">classes", "recipe", ">epochs", ">top-1", ">kB", "sha256")
        table = tables.render(columns, rows, "trained weights; top-1 of the packed weights on the whole test set")
        name = self.weights[0].name
        return f"{table}\n\nstart from them: kbnn train --weights {name} --data photos/"


@dataclasses.dataclass(frozen=True)
class ModelDetails:
    """A network with its methods, options and docstring."""

    name: str
    summary: str
    published: dict[str, str]
    input_shape: tuple[int, int, int]
    classes: int
    method: str
    methods: tuple[str, ...]
    refuses: dict[str, str]
    options: dict[str, object]
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
@click.option("--pretrained", is_flag=True, help="List the trained weights that ship.")
@click.option("--cost", is_flag=True, help="Count storage and multiplications, layer by layer.")
@click.option("--input", "input_shape", metavar="HxWxC", help="Input shape, such as 32x32x3.")
@click.option("--classes", type=int, help="Number of classes.")
@click.option("--method", help="Binarization method.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the network; repeatable.")
@click.option(
    "--max-kb",
    type=click.FloatRange(min=0, min_open=True),
    help="List networks whose weights need at most this many kB.",
)
@click.option("--max-macs", metavar="COUNT", help="List networks with at most this many MACs, such as 50M.")
@click.option("--rule", default="bireal", show_default=True, help="Counting rule: bireal or presb.")
@json_option
def command(
    name: str,
    pretrained: bool,
    cost: bool,
    input_shape: str | None,
    classes: int | None,
    method: str | None,
    options: tuple[str, ...],
    max_kb: float | None,
    max_macs: str | None,
    rule: str,
    as_json: bool,
) -> None:
    """List the networks whose names match NAME, describe one, count its costs, or list those that fit a budget.

    \b
    Example:
      kbnn models
      kbnn models --pretrained
      kbnn models --input 96x96x3 --classes 5 --max-kb 100 --max-macs 50M
      kbnn models "presb*"
      kbnn models resnet20
      kbnn models --cost bireal18 --input 224x224x3
      kbnn models --cost resnet20 --method xnor+ml --option shortcut_type=A
    """
    shape = _parse_shape(input_shape)
    settings = dict(_parse_option(option) for option in options)
    budget = _CostLimits(max_kb, None if max_macs is None else _count(max_macs))
    if cost and _is_pattern(name):
        raise UsageError("--cost counts one network: give its NAME, see 'kbnn models'")
    is_about_builds = bool(shape or classes is not None or method or settings)
    if pretrained and (cost or budget.is_given or is_about_builds):
        raise UsageError("--pretrained lists trained weights as they are: give it without options that build networks")
    if not cost and not budget.is_given and is_about_builds:
        raise UsageError("--input, --classes, --method and --option need --cost, --max-kb or --max-macs")
    if pretrained:
        show(_trained(name), as_json)
        return
    if _is_pattern(name) and not budget.is_given:
        show(_listing(name), as_json)
        return
    import_tensorflow()
    from kbnn import accounting
    from kbnn.models import build, get

    if budget.is_given:
        show(_fits(name, budget, shape, classes, method, settings, rule), as_json)
    elif cost:
        show(accounting.count(build(name, method, shape, classes, None, True, **settings), rule), as_json)
    else:
        show(_details(get(name)), as_json)


@dataclasses.dataclass(frozen=True)
class _CostLimits:
    kilobytes: float | None
    macs: float | None

    @property
    def is_given(self) -> bool:
        return self.kilobytes is not None or self.macs is not None

    def refusal(self, fit: Fit) -> str | None:
        """The reason why a network does not fit; None if it does."""
        if self.kilobytes is not None and fit.kilobytes > self.kilobytes:
            return f"{fit.kilobytes:.1f} kB"
        macs = fit.binary_macs + fit.real_macs
        return f"{_millions(macs)} M MACs" if self.macs is not None and macs > self.macs else None


def _fits(
    pattern: str,
    budget: _CostLimits,
    shape: tuple[int, int, int] | None,
    classes: int | None,
    method: str | None,
    settings: dict[str, object],
    rule: str,
) -> Fits:
    from kbnn import accounting
    from kbnn.models import architectures, build

    fits, refused = [], {}
    found = list(architectures(pattern))
    for number, each in enumerate(found):
        click.echo(f"{number + 1}/{len(found)} {each.name}", err=True)
        try:
            cost = accounting.count(build(each.name, method, shape, classes, None, True, **settings), rule)
        except (UsageError, ValueError) as error:
            refused[each.name] = " ".join(str(error).split())[:120]
            continue
        kilobytes = cost.storage_bits / 8000
        fit = Fit(
            each.name,
            method or each.method,
            kilobytes,
            int(cost.binary_macs),
            int(cost.real_macs),
            each.published,
            _accuracies(each.name),
        )
        reason = budget.refusal(fit)
        if reason:
            refused[each.name] = reason
        else:
            fits.append(fit)
    if not found:
        raise _no_match(pattern)
    return Fits(shape or found[0].input_shape, classes, tuple(sorted(fits, key=lambda fit: fit.kilobytes)), refused)


def _trained(pattern: str) -> PretrainedListing:
    from kbnn import pretrained

    every = pretrained.all_networks()
    found = [each for each in every if any(fnmatch.fnmatchcase(text, pattern) for text in (each.name, each.network))]
    if not found:
        raise UsageError(
            f"no trained weights match '{pattern}': choose one of {', '.join(each.name for each in every)}"
        )
    return PretrainedListing(tuple(found))


def _accuracies(network: str) -> dict[str, float]:
    """The top-1 accuracies of a network's weights and files that ship, the most accurate first."""
    from kbnn import examples, pretrained

    known = {each.name: each.test_top1 for each in pretrained.all_networks() if each.network == network}
    files = [examples.get(name) for name in examples.names() if name.startswith(f"{network}-")]
    known = {**{file.name: file.test_top1 for file in files}, **known}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def _listing(pattern: str) -> ModelListing:
    from kbnn.cli.cache import cached

    rows = cached("models", ["kbnn.models"], ["kbnn.architectures"], all_rows)
    found = [row for row in rows if fnmatch.fnmatchcase(row["name"], pattern)]
    if not found:
        raise _no_match(pattern)
    return ModelListing(tuple(found))


def all_rows() -> list[ModelRow]:
    import_tensorflow()
    from kbnn.models import architectures

    return [
        ModelRow(
            name=each.name,
            input_shape=each.input_shape,
            classes=each.classes,
            method=each.method,
            summary=each.summary,
            published=each.published,
        )
        for each in architectures("*")
    ]


def _no_match(pattern: str) -> UsageError:
    return UsageError(f"no model's name matches: received '{pattern}', see 'kbnn models'")


def _count(text: str) -> float:
    """Parses a number such as `50M`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMG]?)", text)
    if not match:
        raise UsageError(f"--max-macs must be a number, optionally with k, M or G, such as 50M: received '{text}'")
    return float(match[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]]


def _details(architecture: "Architecture") -> ModelDetails:
    return ModelDetails(
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
    """Parses a shape such as `224x224x3`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if not match:
        raise UsageError(f"--input must be HEIGHTxWIDTHxCHANNELS, such as 32x32x3: received '{text}'")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def _parse_option(text: str) -> tuple[str, object]:
    """Parses `KEY=VALUE`, with a TOML value or else plain text: `width=0.5`, `blocks=[3, 4, 6, 3]`, `stem=cifar`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--option must be KEY=VALUE, such as width=0.5: received '{text}'")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
