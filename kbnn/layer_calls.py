"""Watches the calls of a model's layers, within one thread and without patching a class.

Unlike `layer.input`, which exists in functional models only, this also works for nested and subclassed models, eagerly
and while a function is traced.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias

import tensorflow as tf

Layer: TypeAlias = tf.keras.layers.Layer
Arguments = tuple[object, ...]
Keywords = dict[str, object]

_LOCK = threading.Lock()


class Watcher(Protocol):
    """Receives each call of a layer before and after it runs, and may replace its arguments and outputs."""

    def enter(self, layer: Layer, args: Arguments, kwargs: Keywords) -> tuple[Arguments, Keywords]:
        """Returns the arguments to call the layer with."""

    def leave(self, layer: Layer, outputs: object) -> object:
        """Returns the outputs for the caller."""


@contextlib.contextmanager
def watched(layers: Iterable[Layer], watcher: Watcher) -> Iterator[None]:
    """Reports to `watcher` every call of the layers in this thread; calls in other threads are not affected."""
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
    """The watchers of a layer by thread. The first watcher replaces the layer's own `call`."""
    current = layer.__dict__.get("call")
    found: dict[int, Watcher] | None = getattr(current, "kbnn_watchers", None)
    if found is not None:
        return found
    found = {}
    call = _watched_call(layer, layer.call, found)
    call.kbnn_watchers, call.kbnn_before = found, current  # type: ignore[attr-defined]
    # Keras would track an attribute that is set with setattr.
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


def _watched_call(layer: Layer, call: Callable[..., object], watchers: dict[int, Watcher]) -> Callable[..., object]:
    # The layers that a `tf.function` calls would be in another graph; its Python function calls them in this one.
    call = getattr(call, "python_function", call)

    # AutoGraph converts this function, and through it the layer's own `call`, as it would without a watcher.
    def watched_call(*args: object, **kwargs: object) -> object:
        args, kwargs = _enter(layer, watchers, args, kwargs)
        outputs = call(*args, **kwargs)
        return _leave(layer, watchers, outputs)

    return watched_call


@tf.autograph.experimental.do_not_convert
def _enter(layer: Layer, watchers: dict[int, Watcher], args: Arguments, kwargs: Keywords) -> tuple[Arguments, Keywords]:
    watcher = watchers.get(threading.get_ident())
    return (args, kwargs) if watcher is None else watcher.enter(layer, args, kwargs)


@tf.autograph.experimental.do_not_convert
def _leave(layer: Layer, watchers: dict[int, Watcher], outputs: object) -> object:
    watcher = watchers.get(threading.get_ident())
    return outputs if watcher is None else watcher.leave(layer, outputs)
