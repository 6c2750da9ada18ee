"""C text of a planned network: its constants, its steps, and the functions around them."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kbnn.converters.c.plan import Array, Field, Place, Plan, Step, Struct, Tensor
from kbnn.converters.c.writers import Network
from kbnn.converters.errors import ConversionError

_MEMORIES = {"arena": "KBNN_ARENA", "image": "KBNN_IMAGE", "scores": "KBNN_SCORES"}
_COLUMNS = 118
# Steps name places by a byte.
_MOST_PLACES = 256
# Bytes per value, for the size in flash.
_SIZES = {"uint32_t": 4, "int32_t": 4, "uint16_t": 2, "int16_t": 2, "int8_t": 1, "uint8_t": 1}


# C compilers need to distinguish only the first 63 characters of names; a number may follow.
_LONGEST_NAME = 50


def identifier(name: str) -> str:
    """The C identifier of a constant. It begins with v_, because a layer may be named like a function or a keyword."""
    return "v_" + re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:_LONGEST_NAME]


@functools.cache
def _field_limits() -> dict[str, dict[str, tuple[int, int]]]:
    """The smallest and the largest integer of each field of the structs in kbnn_nn.h, in order."""
    text = (Path(__file__).parent / "kbnn_nn.h").read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    structs = re.findall(r"typedef struct(?: \w+)? \{([^}]*)\} (\w+);", text)
    limits: dict[str, dict[str, tuple[int, int]]] = {}
    for body, name in structs:
        limits[name] = {}
        for kind, key in re.findall(r"^ *(?:const )?(\w+) (\w+)(?:\[\d+\])?;", body, flags=re.MULTILINE):
            held = {f"{key}.{inner}": pair for inner, pair in limits.get(kind, {}).items()}
            limits[name] |= held or ({key: _limits(kind)} if kind.endswith("_t") else {})
    return limits


def _limits(ctype: str) -> tuple[int, int]:
    held = np.iinfo(ctype.removesuffix("_t"))
    return int(held.min), int(held.max)


def _check(name: str, key: str, values: np.ndarray, limits: tuple[int, int]) -> None:
    """Refuses integers that a field of the kernels does not hold."""
    low, high = limits
    if values.size and (values.min() < low or values.max() > high):
        largest = values.max() if values.max() > high else values.min()
        raise ConversionError(
            f"'{name}' has no form in C: the field '{key}' holds {low} to {high}, received {largest}: use a "
            f"smaller image or fewer channels"
        )


@dataclass
class Definitions:
    """Constants by content: equal ones are defined once. `size` is their size in flash."""

    lines: list[str] = field(default_factory=list)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    size: int = 0

    def array(self, array: Array) -> str:
        """The name of an array, defined if it is new."""
        values = np.asarray(array.values)
        if values.ndim == 2:
            for column, (key, limits) in zip(values.T, _field_limits()[array.ctype].items(), strict=True):
                _check(array.name, key, column, limits)
        elif array.ctype != "float":
            _check(array.name, "values", values, _limits(array.ctype))
        if array.ctype == "float":
            items = [float_literal(value) for value in values]
        elif values.ndim == 1:
            items = [_number(value) for value in values.tolist()]
        else:
            items = [_braces(row) for row in values.tolist()]
        size = values.size * _SIZES.get(array.ctype, 4)
        return self._define(array.ctype, f"[{len(items)}]", wrapped(items), array.name, size)

    def struct(self, struct: Struct) -> str:
        """The name of a struct, defined if it is new, with what it refers to before it."""
        for key, limits in _field_limits()[struct.ctype].items():
            value = struct.fields[key]
            if not isinstance(value, float | str | Struct):
                _check(struct.name, key, np.asarray(value.values if isinstance(value, Array) else value), limits)
        fields = [(key, self.value(value)) for key, value in struct.fields.items()]
        body = "".join(f"    .{key} = {value},\n" for key, value in fields)
        return self._define(struct.ctype, "", "\n" + body, struct.name, 4 * len(fields) // 2)

    def value(self, value: Field) -> str:
        """A field's initializer."""
        if isinstance(value, Array):
            return self.array(value) if value.ctype else _braces(value.values.tolist())
        if isinstance(value, Struct):
            return f"&{self.struct(value)}"
        if isinstance(value, float):
            return float_literal(value)
        return value if isinstance(value, str) else _number(int(value))

    def _define(self, ctype: str, suffix: str, body: str, hint: str, size: int) -> str:
        key = (ctype + suffix, body)
        if key not in self.names:
            name = self._unused(identifier(hint))
            self.names[key] = name
            self.lines.append(f"static const {ctype} {name}{suffix} = {{{body}}};\n")
            self.size += size
        return self.names[key]

    def _unused(self, name: str) -> str:
        candidates = (name if k == 1 else f"{name}_{k}" for k in range(1, len(self.taken) + 2))
        chosen = next(candidate for candidate in candidates if candidate not in self.taken)
        self.taken.add(chosen)
        return chosen


def float_literal(value: float) -> str:
    """A float constant of C, exactly."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def _number(value: int) -> str:
    if value == -(2**31):
        return "(-2147483647 - 1)"
    if value > 2**32 - 1 or value < -(2**31):
        return f"INT64_C({value})"
    return f"{value}u" if value > 2**31 - 1 else str(value)


def _braces(values: Iterable[int]) -> str:
    return "{" + ", ".join(_number(int(value)) for value in values) + "}"


def wrapped(items: Sequence[str]) -> str:
    """Items, wrapped to the width of the file."""
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) + 2 > _COLUMNS - 4 and line:
            lines.append(line.rstrip())
            line = ""
        line += item + ", "
    lines.append(line.rstrip())
    return "\n" + "".join(f"    {text}\n" for text in lines)


@dataclass(frozen=True)
class Program:
    """The text of the constants and of the network's tables, and their size in flash, without code."""

    constants: str
    rows: str
    steps: str
    passes: str
    pass_count: int
    size: int


def program(network: Network, plan: Plan) -> Program:
    """A plan as C tables."""
    definitions = Definitions()
    places: dict[Place, int] = {}
    steps, passes = [], []
    for each in plan.passes:
        passes.append(f"    {{{len(each.steps)}, {each.rows}}},\n")
        steps += [_step(step, plan, definitions, places) for step in each.steps]
    if len(places) > _MOST_PLACES:
        raise ConversionError(
            f"the network's tensors have {len(places)} places in memory, more than the {_MOST_PLACES} that steps can "
            f"name: export a network with fewer layers of different sizes"
        )
    size = definitions.size + len(steps) * 12 + len(passes) * 4 + len(places) * 12
    rows = "".join(f"    {{{p.offset}, {p.pitch}, {p.rows}, {_MEMORIES[p.memory]}}},\n" for p in places)
    return Program("\n".join(definitions.lines), rows, "".join(steps), "".join(passes), len(passes), size)


def _step(step: Step, plan: Plan, definitions: Definitions, places: dict[Place, int]) -> str:
    params = definitions.struct(step.params)
    used = [plan.place(tensor) for tensor in (*step.inputs, step.output)]
    scratch = Place(plan.scratch.get(id(step), 0), 0, 1, "arena")
    first, second = used[0], used[-2]
    numbers = [places.setdefault(place, len(places)) for place in (first, second, used[-1], scratch)]
    return f"    {{{step.kernel}, &{params}, {', '.join(map(str, numbers))}}}, /* {_remark(step.output)} */\n"


def _remark(tensor: Tensor) -> str:
    return re.sub(r"[^\w ./+-]|/(?=\*)|\*(?=/)", "_", tensor.name)
