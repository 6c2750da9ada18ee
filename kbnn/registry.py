"""Registries of named objects, which other installed packages can extend."""

import importlib.metadata
import warnings
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from kbnn.errors import UsageError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Values of one kind by name and alias.

    Unknown names are looked up in the entry points of `group`, so that installed packages can add their own. An entry
    point names a module that registers its objects on import, or an object, which `adopt` registers under the entry
    point's name.

    Args:
        kind: the kind of values, for error messages, such as "method".
        group: group of entry points, such as "kbnn.methods".
        adopt: registers the object of an entry point, given a name and the object, unless it is already registered.
    """

    def __init__(self, kind: str, group: str, adopt: Callable[[str, object], None]) -> None:
        self.kind = kind
        self.group = group
        self._adopt = adopt
        self._values: dict[str, T] = {}
        self._aliases: dict[str, str] = {}
        self._sources: dict[str, object] = {}
        self._loaded: set[tuple[str, str]] = set()

    def add(self, name: str, value: T, source: object, aliases: Iterable[str] = ()) -> None:
        """Registers a value.

        Registering the same class or function again, as when a notebook cell is rerun, replaces it.

        Args:
            name: the name in `names`.
            value: the value that `get` returns.
            source: the class or function that defines the value.
            aliases: further names for `get`.

        Raises:
            UsageError: a name is empty, or taken by another class or function.
        """
        for known in (name, *aliases):
            if not known:
                raise UsageError(f"cannot register a {self.kind} without a name: give one")
            taken = self._sources.get(known)
            if taken is not None and _definition(taken) != _definition(source):
                raise UsageError(
                    f"cannot register {self.kind} '{known}': the name is taken by {'.'.join(_definition(taken))}; "
                    f"choose another one"
                )
        self._values[name] = value
        self._sources |= dict.fromkeys((name, *aliases), source)
        self._aliases |= dict.fromkeys(aliases, name)

    def get(self, name: str, what: str | None = None, among: Callable[[T], bool] = lambda _: True) -> T:
        """The value with a name or alias.

        Args:
            name: the name or alias.
            what: what the name stands for, in the error message; by default the registry's kind.
            among: which values the error message suggests.

        Raises:
            UsageError: the name is not registered; close names are suggested.
        """
        if name not in self:
            raise unknown(what or self.kind, name, [known for known in self.names() if among(self._values[known])])
        return self._values[self._aliases.get(name, name)]

    def names(self) -> list[str]:
        """The registered names, sorted, without aliases."""
        self._load_plugins()
        return sorted(self._values)

    def __contains__(self, name: object) -> bool:
        if not self._knows(name):
            self._load_plugins()
        return self._knows(name)

    def _knows(self, name: object) -> bool:
        return name in self._values or name in self._aliases

    def _load_plugins(self) -> None:
        for entry in importlib.metadata.entry_points(group=self.group):
            if (entry.name, entry.value) in self._loaded:
                continue
            self._loaded.add((entry.name, entry.value))
            try:
                found = entry.load()
                is_registered = any(found is source for source in self._sources.values())
                if ":" in entry.value and not is_registered:
                    self._adopt(entry.name, found)
            except Exception as error:
                # A broken package must not break the others.
                warnings.warn(
                    f"{self.kind} '{entry.name}' ({entry.value}) cannot be loaded: {type(error).__name__}: {error}; "
                    f"fix or uninstall the package that provides it",
                    RuntimeWarning,
                    stacklevel=2,
                )


def _definition(source: object) -> tuple[str, str]:
    """The module and qualified name of a class or function."""
    return getattr(source, "__module__", ""), getattr(source, "__qualname__", repr(source))
