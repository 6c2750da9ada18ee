"""kbnn is imported before any test module can import TensorFlow, so that tf.keras is Keras 2."""

import ctypes
import gc
import os
import resource
import signal
import sys
import zlib
from collections.abc import Iterator

import pytest

# TensorFlow's own allocator for oneDNN never returns memory: workers would keep that of their largest networks.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")

# XLA compiles each function for each shape, which takes longer than most tests. These, and the processes that they
# start, run functions uncompiled; tests of what is compiled have the marker `xla`.
os.environ.setdefault("KBNN_XLA", "0")

import kbnn  # noqa: F401


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the cases that a test's `core` marker does not name as slow."""
    for item in items:
        core = item.get_closest_marker("core")
        if core is not None and item.callspec.id not in core.args:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> None:
    """Seeds each shared fixture by its name, so that its networks do not depend on the tests that ran before it."""
    if fixturedef.scope != "function" and "tensorflow" in sys.modules:
        sys.modules["tensorflow"].keras.utils.set_random_seed(zlib.crc32(fixturedef.argname.encode()))


@pytest.fixture(autouse=True, scope="session")
def freeze_imports() -> None:
    """Initializes TensorFlow, then excludes everything imported so far from garbage collection, which saves time."""
    import tensorflow as tf

    tf.config.list_logical_devices()
    tf.keras.backend.clear_session()
    gc.freeze()
    # TensorFlow's graphs are many small objects; `free_memory` collects them when they have added up.
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True)
def compile_with_xla(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns XLA on in tests with the marker `xla`, and in the processes that they start."""
    if request.node.get_closest_marker("xla") is not None:
        from kbnn import compiled

        monkeypatch.setenv(compiled.VARIABLE, "1")
        monkeypatch.setattr(compiled, "available", lambda: True)


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Signals have their usual effect, even if the tests were started by nohup or in the background of a shell."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Growth of a worker, in bytes, after which it frees memory left by its tests.
GROWTH = 100_000_000
_grown_from = 0
_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    """Frees the networks of earlier tests, which are reference cycles, together with their graphs.

    Collecting after every test would take a sixth of the suite's time.
    """
    global _grown_from
    yield
    if _resident() - _grown_from < GROWTH:
        return
    import tensorflow as tf
    from tensorflow.python.framework import ops

    tf.keras.backend.clear_session()
    # TensorFlow keeps every custom gradient that was ever traced into a graph, and the graph with it.
    gradients = ops.gradient_registry._registry
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]
    gc.collect()
    # The C library keeps what Python freed in pieces, unless it is asked to return it.
    _trim(0)
    _grown_from = _resident()


def _resident() -> int:
    """The memory of this process in bytes."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123, opened for every test
        return int(statm.read().split()[1]) * resource.getpagesize()
