"""The order of the passes, and files made by other versions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import Operation
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy, pipeline, with_passes
from kbnn.errors import KbnnError

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "deployment.md"


def test_a_file_says_which_passes_made_it():
    options = with_passes(Options(kernel="portable"))
    assert options.passes[0] == pipeline.LIFTING
    assert "split_groups" in options.passes
    assert Options.from_json(options.to_json()) == options


def test_a_file_is_repeated_by_its_own_passes(bireal):
    every = deploy(Reference(bireal), Options())
    one = deploy(Reference(bireal), Options(passes=(pipeline.LIFTING, "merge_affine")))
    assert len(one.nodes) >= len(every.nodes)


@pytest.mark.parametrize(
    "passes", [("lift@1", "merge_affine"), (pipeline.LIFTING, "settle_shifts@9"), ("merge_affine",)]
)
def test_passes_of_another_version_are_one_error(passes, bireal):
    with pytest.raises(KbnnError, match=r"made by another version of kbnn: .* convert the model again"):
        deploy(Reference(bireal), Options(passes=passes))


def test_an_endless_list_of_passes_is_refused():
    with pytest.raises(ValueError, match="1000 passes"):
        Options.from_json({"passes": ["merge_affine"] * 1000})


def test_every_pass_is_documented():
    text = DOCUMENTATION.read_text()
    every = [Options(), Options(kernel="portable", device="pi4")]
    names = {name for options in every for name in with_passes(options, in_int8=True).passes}
    assert [name for name in names if f"`{name}`" not in text] == []


@dataclass(frozen=True, eq=False)
class Reversed(Operation):
    """-x: an operation that only this test knows, in one class."""

    def __call__(self, x):
        return -x

    def ways_to_raise(self, shift, channels):
        return [{0: -shift}]

    def surplus(self, surplus, source, channels):
        return -surplus

    def permuted(self, order):
        return self


def test_a_new_operation_is_one_class():
    """A shift and the surplus of a residual stream can move up through it."""
    b = Builder()
    x = b.add("reversed", Reversed(), b.affine("first", "image"))
    graph = b.graph(b.sum("sum", x, b.convolution("conv", b.shift("rsign", x))))
    rewritten = graph
    for name in with_passes(Options()).passes[1:]:
        rewritten = pipeline.PASSES[name](rewritten)
    assert_equal(graph, rewritten)
    assert "rsign" not in rewritten.nodes
    assert operators(rewritten)[:5] == ["MUL", "ADD", "NEG", "LceQuantize", "LceBconv2d"]
    assert np.any(rewritten["first"].operation.offset != graph["first"].operation.offset)
