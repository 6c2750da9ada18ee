"""Deploy: the trained graph in its cheapest exact form, by small passes over an intermediate one."""

from kbnn.converters.graph.graph import Graph, Pass
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes.affine import affine_into_kernels, merge_affine
from kbnn.converters.passes.groups import split_groups
from kbnn.converters.passes.int8 import in_int8
from kbnn.converters.passes.max_pool import affine_before_max_pool
from kbnn.converters.passes.normalization import affine_into_normalization, scale_before_prelu
from kbnn.converters.passes.options import Options
from kbnn.converters.passes.shifts import settle_shifts
from kbnn.converters.passes.shuffles import remove_shuffles
from kbnn.converters.passes.thresholds import signs_as_thresholds


def deploy(reference: Reference, options: Options) -> Graph:
    """The graph that the converter gets for a model."""
    graph = lift(reference)
    for rewrite in _passes(options):
        graph = rewrite(graph)
    return in_int8(graph, options.limits) if options.limits else graph


def _passes(options: Options) -> list[Pass]:
    return [
        remove_shuffles,
        merge_affine,
        scale_before_prelu,
        merge_affine,
        affine_into_normalization,
        signs_as_thresholds,
        affine_before_max_pool,
        settle_shifts,
        merge_affine,
        affine_into_kernels,
        split_groups(portable=options.kernel == "portable"),
    ]
