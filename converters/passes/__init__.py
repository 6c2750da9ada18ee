"""Passes that rewrite the trained graph step by step to its cheapest exact form; one pass per file."""

from kbnn.converters.passes.options import Options
from kbnn.converters.passes.pipeline import deploy, with_passes

__all__ = ["Options", "deploy", "with_passes"]
