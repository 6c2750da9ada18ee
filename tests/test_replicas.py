"""One replica and two give the same update: statistics are synchronized and losses scaled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_one_replica_and_two_give_the_same_update():
    script = Path(__file__).with_name("replicas.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KBNN_XLA": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(done.stdout.splitlines()[-1])
    assert len(differences) == 7
    for name, difference in differences.items():
        assert difference["moved"] > 1e-3, name
        assert difference["apart"] < 1e-5, (name, difference)
