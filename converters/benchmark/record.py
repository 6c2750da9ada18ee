"""Appends measurements to a CSV file, each with the hashes of the measured file and of the tool."""

import datetime
import os

import kbnn
from kbnn import files
from kbnn.converters.benchmark.report import BenchmarkComparison, BenchmarkReport


def append(path: str | os.PathLike[str], comparison: BenchmarkComparison) -> None:
    """Adds one row per report; several processes may append to one file.

    Raises:
        UsageError: the file exists and has other columns.
        KbnnError: it cannot be written.
    """
    files.append_rows(path, [_row(report) for report in comparison.reports])


def _row(report: BenchmarkReport) -> dict[str, object]:
    target, settings, summary = report.target, report.settings, report.summary
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "kbnn": kbnn.__version__,
        "file": report.file.path,
        "file_sha256": report.file.sha256,
        "size_bytes": report.file.size_bytes,
        "tool": report.tool.path,
        "tool_sha256": report.tool.sha256,
        "target": target.name,
        "model": target.model,
        "architecture": target.architecture,
        "system": target.system,
        "governor": target.governor,
        "temperature_before_c": target.before and target.before.temperature_c,
        "temperature_after_c": target.after and target.after.temperature_c,
        "threads": settings.threads,
        "warmup": settings.warmup,
        "runs": settings.runs,
        "repeats": len(report.runs),
        "kernel": settings.kernel,
        "flags": " ".join(f"{name}={value}" for name, value in settings.flags.items()),
        "median_of_means_us": summary.median_of_means_us,
        "min_us": summary.min_us,
        "iqr_us": summary.iqr_us,
        "spread": summary.spread,
        "p95_us": summary.p95_us,
        "binary_share_of_time": report.binary_share_of_time,
        "timing_valid": report.timing_valid,
        "warnings": "; ".join(report.warnings),
    }
