"""Makes the fixtures and sample networks of tests/converters available here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
