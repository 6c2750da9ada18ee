"""Latencies of .tflite files, with reasons not to trust them."""

from kbnn.converters.benchmark.driver import IncompleteError, benchmark, compare
from kbnn.converters.benchmark.report import BenchmarkReport, Comparison

__all__ = ["BenchmarkReport", "Comparison", "IncompleteError", "benchmark", "compare"]
