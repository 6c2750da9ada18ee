"""Deploy: the trained graph in its cheapest exact form, by small passes over an intermediate one."""

from kbnn.converters.deploy.affine import affine_into_kernels, merge_affine
from kbnn.converters.deploy.graph import Graph, Pass
from kbnn.converters.deploy.groups import split_groups
from kbnn.converters.deploy.int8 import in_int8
from kbnn.converters.deploy.lifting import lift
from kbnn.converters.deploy.max_pool import affine_before_max_pool
from kbnn.converters.deploy.normalization import affine_into_normalization, scale_before_prelu
from kbnn.converters.deploy.options import Options
from kbnn.converters.deploy.pending_shifts import settle_shifts
from kbnn.converters.deploy.shuffles import remove_shuffles
from kbnn.converters.deploy.thresholds import signs_as_thresholds
from kbnn.converters.reference import Reference

__all__ = ["Options", "deploy"]


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
