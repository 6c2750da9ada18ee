"""Passes: the trained graph in its cheapest exact form, rewritten step by step; one pass a file."""

from kbnn.converters.passes.options import Options
from kbnn.converters.passes.pipeline import deploy

__all__ = ["Options", "deploy"]
