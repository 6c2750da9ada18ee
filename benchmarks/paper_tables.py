"""Trains rows of a paper's accuracy table at fewer epochs, and writes `results/paper_tables.csv`.

    python benchmarks/paper_tables.py mlbma-table3 runs/mlbma-table3 --epochs 20 --seeds 3 --rows "mlbma-resnet20-*"
    python benchmarks/paper_tables.py siman-table2 runs/siman-table2 --epochs 20 --rows "siman-resnet20-*"

The rows are trained by `kbnn reproduce` in a child process; run the script again to continue after an interruption.
Only rows with all their seeds are recorded, each once.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import record

TABLE = "paper_tables"


class Outcome(TypedDict):
    """The fields of `kbnn reproduce --json` for one row that are recorded."""

    row: str
    paper: float | None
    top1: list[float]
    top5: list[float]
    paper_top5: float | None
    epochs: int
    planned: int
    seeds: list[int]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", help="one of `kbnn reproduce --list`")
    arguments.add_argument("output", type=Path, help="folder of the runs")
    arguments.add_argument("--epochs", type=int, default=20, help="epochs of each row")
    arguments.add_argument("--seeds", type=int, default=1, help="runs of each row")
    arguments.add_argument("--rows", default="*", help="labels of the rows, separated by commas, or patterns")
    options = arguments.parse_args()
    command = [
        *(Path(sys.executable).with_name("kbnn"), "reproduce", options.table, "--rows", options.rows, "--json"),
        *("--epochs", str(options.epochs), "--seeds", str(options.seeds), "--output", options.output),
        *("--precision", "mixed_bfloat16"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        return done.returncode
    _record(options.table, json.loads(done.stdout)["outcomes"], options.seeds)
    return done.returncode


def _record(table: str, outcomes: list[Outcome], seeds: int) -> None:
    known = {(row["table"], row["row"], row["epochs"], row["seeds"]) for row in record.read(TABLE)}
    rows = [
        {
            "table": table,
            "row": outcome["row"],
            "paper": outcome["paper"],
            "paper_top5": outcome["paper_top5"],
            "epochs": outcome["epochs"],
            "planned": outcome["planned"],
            "seeds": " ".join(map(str, outcome["seeds"])),
            "test_top1": " ".join(f"{value:.2f}" for value in outcome["top1"]),
            "test_top5": " ".join(f"{value:.2f}" for value in outcome["top5"]),
            "mean": f"{statistics.fmean(outcome['top1']):.2f}",
            "deviation": f"{statistics.stdev(outcome['top1']):.2f}" if seeds > 1 else "",
        }
        for outcome in outcomes
        if len(outcome["top1"]) == seeds
    ]
    new = [row for row in rows if (row["table"], row["row"], str(row["epochs"]), row["seeds"]) not in known]
    if new:
        record.append(TABLE, new)


if __name__ == "__main__":
    raise SystemExit(main())
