"""Writes `kbnn/cli/tables.json`: what `kbnn models` lists, so that it need not import TensorFlow.

.venv/bin/python benchmarks/listings.py
"""

import json

import record

from kbnn import files
from kbnn.cli import cache, models


def main() -> None:
    found = {"models": cache.described(["kbnn.models"], models.all_rows())}
    files.write(record.ROOT / "kbnn" / "cli" / cache.TABLES, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
