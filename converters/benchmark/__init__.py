"""Latencies of .tflite files that say whether they can be trusted."""

from kbnn.converters.benchmark.driver import IncompleteError, benchmark, compare
from kbnn.converters.benchmark.report import Comparison, Report

__all__ = ["Comparison", "IncompleteError", "Report", "benchmark", "compare"]
