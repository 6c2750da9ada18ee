"""Compares a file made by kbnn with a new conversion of its model: equal models and options give equal bytes."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.tflite import metadata
from kbnn.converters.tflite.building import build, made_with, reference_for
from kbnn.converters.tflite.converter import MADE_BY
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.metadata import Description
from kbnn.errors import KbnnError

_MOST_LISTED = 6


@dataclass(frozen=True)
class Rebuilt:
    """The graph that a file should have been made from, and how the file differs from a new conversion.

    `differences` is None if the file was made by other versions; `reason` names them.
    """

    graph: Graph
    differences: list[str] | None
    reason: str | None = None


def options_of(file: File) -> Options | None:
    """How kbnn made a file, according to its metadata; None for a file that it did not make."""
    record = _record(file)
    try:
        return None if record is None else Options.from_json(record)
    except (AttributeError, TypeError, ValueError):
        return None


def rebuild(keras: Reference, file: File, options: Options) -> Rebuilt:
    """Converts the model again with the options in the file's metadata, and compares everything.

    Raises:
        KbnnError: the file lists passes that this version of kbnn does not have.
    """
    record = _record(file) or {}
    theirs, ours = {key: record.get(key, "unknown") for key in made_with()}, made_with()
    if theirs != ours:
        reason = f"it was made by kbnn {theirs['version']} with {theirs['tools']}, this is {_named(ours)}"
        return Rebuilt(deploy(reference_for(keras, options), options), None, reason)
    described = description_of(file)
    try:
        again, graph = build(keras, options, described or Description())
    except KbnnError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        described, graph = None, deploy(reference_for(keras, options), options)
    if described is None:
        return Rebuilt(graph, ["its record of how it was made is damaged"])
    return Rebuilt(graph, differences(file, again))


def description_of(file: File) -> Description | None:
    """The description that kbnn wrote into a file; None if there is none, or it is damaged."""
    record = _record(file)
    if record is None:
        return None
    try:
        resize, square = metadata.framing(file)
        return Description(
            model=_text(record.get("model", "")),
            recipe=_text(record.get("recipe", "")),
            dataset=_text(record.get("dataset", "")),
            labels=tuple(map(_text, _list(record, "labels"))),
            mean=tuple(map(_number, _list(record, "mean"))),
            std=tuple(map(_number, _list(record, "std"))),
            resize=resize,
            square=square,
        )
    except (TypeError, KbnnError):
        return None


def _list(record: Mapping[str, object], name: str) -> list[object]:
    values = record.get(name, [])
    if not isinstance(values, list):
        raise TypeError(f"'{name}' is not a list")
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _number(value: object) -> int | float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def differences(file: File, again: File) -> list[str]:
    """Describes how a file differs from another one of the same model; empty if their bytes are equal."""
    if file.data == again.data:
        return []
    found = [*_different_structure(file, again), *_different_metadata(file, again)]
    if not found:
        found = [*_different_constants(file, again)]
    if not found and file.data.startswith(again.data):
        found = [f"{len(file.data) - len(again.data)} bytes are appended to it"]
    listed, more = found[:_MOST_LISTED], len(found) - _MOST_LISTED
    if more > 0:
        listed.append(f"{more} more differences")
    return listed or [f"its bytes differ: {len(file.data)}, not {len(again.data)}"]


def _different_structure(file: File, again: File) -> Iterator[str]:
    ours, theirs = (Counter(operator.name for operator in each.operators) for each in (again, file))
    for name in sorted(ours | theirs):
        if ours[name] != theirs[name]:
            yield f"it has {theirs[name]} {name} operators, not {ours[name]}"
    for end in ("inputs", "outputs"):
        mine, other = ({name: t.shape for name, t in getattr(each, end).items()} for each in (again, file))
        if mine != other:
            yield f"its {end} are {other}, not {mine}"
    if ours != theirs:
        return
    for operator, expected in zip(file.operators, again.operators, strict=True):
        if _form(operator) != _form(expected):
            yield f"operator {operator.index} ({operator.name}) has other options, inputs or outputs"


def _different_metadata(file: File, again: File) -> Iterator[str]:
    if metadata.labels(file) != metadata.labels(again):
        yield "its labels are not those in its record"
    for name in sorted(file.metadata.keys() | again.metadata.keys()):
        if file.metadata.get(name) != again.metadata.get(name):
            yield f"its metadata entry {name} differs"


def _different_constants(file: File, again: File) -> Iterator[str]:
    if len(file.tensors) != len(again.tensors):
        yield f"it has {len(file.tensors)} tensors, not {len(again.tensors)}"
        return
    for tensor, expected in zip(file.tensors, again.tensors, strict=True):
        if _kind(tensor) != _kind(expected):
            yield f"tensor '{tensor.name}' has another name, type, shape or scale than '{expected.name}'"
        elif tensor.data is None or expected.data is None:
            if tensor.data is not expected.data:
                yield f"tensor '{tensor.name}' is a constant in only one of the two files"
        elif not np.array_equal(tensor.data, expected.data):
            changed = _changed(tensor.data, expected.data)
            yield f"constant '{tensor.name}' differs in {changed} of {len(expected.data)} bytes"


def _changed(data: np.ndarray, expected: np.ndarray) -> int | str:
    return int(np.count_nonzero(data != expected)) if len(data) == len(expected) else "all"


def _form(operator: Operator) -> tuple[object, ...]:
    inputs = [None if tensor is None else tensor.index for tensor in operator.inputs]
    options = {key: repr(value) for key, value in operator.options.items()}
    return operator.name, inputs, [tensor.index for tensor in operator.outputs], options


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.name, tensor.shape, tensor.dtype, tensor.scales, tensor.zero_points


def _record(file: File) -> dict[str, object] | None:
    try:
        record = json.loads(file.metadata[MADE_BY])
    except (KeyError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _named(versions: dict[str, str]) -> str:
    return f"kbnn {versions['version']} with {versions['tools']}"
