"""Compares trained networks in every form of file on all test images; writes `results/forms.csv` and its table.

    python benchmarks/forms.py runs/RUN...     measures, then writes the tables between the marks in docs/deployment.md
    python benchmarks/forms.py --page          only writes the tables, from forms.csv and int8_sources.csv in results/

A run that is measured again replaces its rows. `kbnn benchmark --forms` measures latencies, on a device.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import record

from kbnn.converters import deployments
from kbnn.training import Run

TABLE = "forms"
SOURCES = "int8_sources"
DOCS = record.ROOT / "docs" / "deployment.md"


def measure(run: Run) -> list[dict[str, object]]:
    """A row per form: top-1 with its 95 % interval, agreement with Keras, and bytes."""
    data, recipe = run.dataset(), run.recipe
    with tempfile.TemporaryDirectory() as folder:
        found = deployments(run.model(), data, folder)
    known = {
        "run": run.folder.name,
        "network": recipe.model.name,
        "method": recipe.model.method,
        "dataset": data.name,
        "epochs": len(run.history()),
        "test_images": found.samples,
    }
    rows = []
    for form in found.forms:
        if form.top1 is None:
            raise SystemExit(f"error: {form.name}: {form.refusal}")
        figures = {
            "form": form.name,
            "made_by": form.command,
            "top1": f"{form.top1.top1:.4f}",
            "top1_low": f"{form.top1.low:.4f}",
            "top1_high": f"{form.top1.high:.4f}",
            "agreement": f"{form.agreement:.4f}",
            "bytes": form.size_bytes or "",
        }
        rows.append({**known, **figures})
    return rows


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """The rows of `results/forms.csv` as Markdown tables, one per network and method: its newest run."""
    runs: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        known = runs.setdefault((row["network"], row["method"]), [])
        if known and known[0]["run"] != row["run"]:
            known.clear()
        known.append(row)
    return "\n\n".join(map(_table_of_run, runs.values()))


def _table_of_run(rows: list[Mapping[str, str]]) -> str:
    first = rows[0]
    title = (
        f"`{first['run']}`: {first['network']} with method {first['method']}, {first['epochs']} epochs, "
        f"{int(first['test_images']):,} test images of {first['dataset']}"
    )
    head = ["| form | made by | top-1 (95 % interval) | same class as Keras | bytes |", "|---|---|--:|--:|--:|"]
    return "\n".join([title, "", *head, *map(_line, rows)])


def _line(row: Mapping[str, str]) -> str:
    low, top1, high = (100 * float(row[key]) for key in ("top1_low", "top1", "top1_high"))
    made_by = f"`{row['made_by']}`" if row["made_by"] else ""
    agreement, size = ("", "") if not row["bytes"] else (_percent(row["agreement"]), f"{int(row['bytes']):,}")
    return f"| {row['form']} | {made_by} | {top1:.1f} % ({low:.1f} to {high:.1f}) | {agreement} | {size} |"


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %"


def sources_table(rows: Iterable[Mapping[str, str]]) -> str:
    """The rows of `results/int8_sources.csv` as a Markdown table."""
    head = ["| rounded or changed | same class | top-1 | change of the logits (rms) |", "|---|--:|--:|--:|"]
    lines = [
        f"| {row['changed']} | {_percent(row['agreement'])} | {_percent(row['top1'])} | {row['logits_rms']} |"
        for row in rows
    ]
    return "\n".join([*head, *lines])


def page(text: str) -> str:
    """The page with its tables written from `results/`."""
    tables = {TABLE: table(record.read(TABLE)), SOURCES: sources_table(record.read(SOURCES))}
    for name, content in tables.items():
        text = record.filled(text, name, content)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of trained runs")
    parser.add_argument("--page", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    if not arguments.runs and not arguments.page:
        parser.error("give RUN, or --page")
    for folder in arguments.runs:
        run = Run.open(folder)
        record.update(TABLE, measure(run), seed=run.recipe.seed, run=run.folder.name)
    DOCS.write_text(page(DOCS.read_text()))


if __name__ == "__main__":
    main()
