"""Latencies of .tflite files that say whether they can be trusted."""

from kbnn.converters.benchmark.driver import benchmark, compare
from kbnn.converters.benchmark.report import Comparison, Report

__all__ = ["Comparison", "Report", "benchmark", "compare"]
