"""Watching the calls of a model's layers, in one thread and without patching any class.

`layer.input` exists for functional models only; this works for nested and subclassed ones too, in eager mode as well
as while a function is traced.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import tensorflow as tf

Layer = Any
_LOCK = threading.Lock()


class Watcher(Protocol):
    """Told of each call of a layer before and after; it may replace what the layer gets and returns."""

    def enter(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """Returns the arguments to call the layer with."""

    def leave(self, layer: Layer, outputs: Any) -> Any:
        """Returns the outputs for the caller."""


def layers_of(model: Layer) -> list[Layer]:
    """A model and everything in it that is a layer: nested models, wrapped layers, cells, quantizers."""
    return [model, *(module for module in model.submodules if isinstance(module, tf.keras.layers.Layer))]


@contextlib.contextmanager
def watched(layers: Iterable[Layer], watcher: Watcher) -> Iterator[None]:
    """Tells `watcher` of every call that this thread makes of the layers; other threads' calls are left alone."""
    thread, distinct = threading.get_ident(), {id(layer): layer for layer in layers}.values()
    with _LOCK:
        for layer in distinct:
            _watchers(layer)[thread] = watcher
    try:
        yield
    finally:
        with _LOCK:
            for layer in distinct:
                _unwatch(layer, thread)


def _watchers(layer: Layer) -> dict[int, Watcher]:
    """By thread, those who watch a layer. The first one replaces the `call` of this one layer."""
    current = layer.__dict__.get("call")
    found: dict[int, Watcher] | None = getattr(current, "kbnn_watchers", None)
    if found is not None:
        return found
    found = {}
    call = _watched_call(layer, layer.call, found)
    call.kbnn_watchers, call.kbnn_before = found, current  # type: ignore[attr-defined]
    # Not by setattr, which Keras would track as an attribute of the model.
    layer.__dict__["call"] = call
    return found


def _unwatch(layer: Layer, thread: int) -> None:
    call = layer.__dict__["call"]
    call.kbnn_watchers.pop(thread, None)
    if call.kbnn_watchers:
        return
    del layer.__dict__["call"]
    if call.kbnn_before is not None:
        layer.__dict__["call"] = call.kbnn_before


def _watched_call(layer: Layer, call: Callable[..., Any], watchers: dict[int, Watcher]) -> Callable[..., Any]:
    # AutoGraph converts this function and, through it, the layer's own `call`, as it would without a watcher.
    def watched_call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _enter(layer, watchers, args, kwargs)
        outputs = call(*args, **kwargs)
        return _leave(layer, watchers, outputs)

    return watched_call


@tf.autograph.experimental.do_not_convert
def _enter(layer: Layer, watchers: dict[int, Watcher], args: tuple[Any, ...], kwargs: Any) -> tuple[Any, Any]:
    watcher = watchers.get(threading.get_ident())
    return (args, kwargs) if watcher is None else watcher.enter(layer, args, kwargs)


@tf.autograph.experimental.do_not_convert
def _leave(layer: Layer, watchers: dict[int, Watcher], outputs: Any) -> Any:
    watcher = watchers.get(threading.get_ident())
    return outputs if watcher is None else watcher.leave(layer, outputs)
