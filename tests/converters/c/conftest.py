"""A compiler for all tests of C code."""

from compiled import compiler  # noqa: F401
