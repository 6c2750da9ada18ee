"""Latencies of .tflite files, with reasons not to trust them."""

from kbnn.converters.benchmark.driver import IncompleteError, benchmark, compare
from kbnn.converters.benchmark.report import BenchmarkComparison, BenchmarkReport

__all__ = ["BenchmarkComparison", "BenchmarkReport", "IncompleteError", "benchmark", "compare"]
