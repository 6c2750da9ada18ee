"""Measures the latency of .tflite files, and reports reasons not to trust the figures."""

from kbnn.converters.benchmark.driver import IncompleteError, benchmark, compare
from kbnn.converters.benchmark.report import BenchmarkComparison, BenchmarkReport

__all__ = ["BenchmarkComparison", "BenchmarkReport", "IncompleteError", "benchmark", "compare"]
