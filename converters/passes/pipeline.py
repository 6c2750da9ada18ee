"""The pipeline of passes that rewrites the trained graph to its cheapest exact form.

A file's metadata lists the passes that made it, so that `verify` repeats them instead of those of a newer version.
"""

from dataclasses import replace

from kbnn.converters.graph.graph import Graph, Pass
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes.affine import affine_into_sums, keep_scales_before_dense, merge_affine
from kbnn.converters.passes.average_pool import halve_by_resizing
from kbnn.converters.passes.groups import split_groups, split_unpackable_groups
from kbnn.converters.passes.hybrid import scales_after_pools
from kbnn.converters.passes.int8 import in_int8
from kbnn.converters.passes.max_pool import affine_before_max_pool
from kbnn.converters.passes.normalization import scale_before_prelu
from kbnn.converters.passes.options import WITH_XNNPACK, Options
from kbnn.converters.passes.prelu_int8 import prelu_as_maximum, prelu_of_any_slope, signs_before_prelu
from kbnn.converters.passes.shifts import settle_shifts
from kbnn.converters.passes.shuffle_pieces import shuffles_in_pieces
from kbnn.converters.passes.shuffles import remove_shuffles
from kbnn.converters.passes.split_add import split_before_add
from kbnn.converters.passes.thresholds import signs_as_thresholds
from kbnn.errors import KbnnError

PASSES: dict[str, Pass] = {
    function.__name__: function
    for function in (
        affine_before_max_pool,
        affine_into_sums,
        halve_by_resizing,
        keep_scales_before_dense,
        merge_affine,
        prelu_as_maximum,
        prelu_of_any_slope,
        remove_shuffles,
        scale_before_prelu,
        settle_shifts,
        shuffles_in_pieces,
        signs_as_thresholds,
        signs_before_prelu,
        split_before_add,
        split_groups,
        split_unpackable_groups,
    )
}


# The lifting rules are the first pass. If the result of a pass changes, it gets another name here, such as `name@2`.
LIFTING = "lift@4"
# The only pass that works on certain layers: those in `Options.hybrid`.
SCALES = scales_after_pools.__name__


def with_passes(options: Options, in_int8: bool = False) -> Options:
    """The options with the names of the passes that they require, for the file's metadata.

    Args:
        options: the options of the conversion.
        in_int8: whether activations will be int8; their ranges are known only after the passes.
    """
    return replace(options, passes=tuple(_names(options, in_int8)))


def deploy(reference: Reference, options: Options) -> Graph:
    """The graph to convert for a model, from the passes that `options` names, or else those that it requires.

    Raises:
        KbnnError: the options name a pass that this version of kbnn does not have.
    """
    names = options.passes or with_passes(options).passes
    missing = [name for name in names if name not in (LIFTING, SCALES) and name not in PASSES]
    if missing or LIFTING not in names:
        raise KbnnError(
            f"the file was made by another version of kbnn: this version has {LIFTING} and no pass "
            f"{', '.join(missing) or 'more'}, received {', '.join(names)}; convert the model again"
        )
    graph = lift(reference)
    for name in names:
        if name == SCALES:
            graph = scales_after_pools(graph, options.hybrid)
        elif name != LIFTING:
            graph = PASSES[name](graph)
    return in_int8(graph, options.limits) if options.limits else graph


def _names(options: Options, in_int8: bool) -> list[str]:
    """The passes in order, with the reasons for the order."""
    return [
        LIFTING,
        # First, because channels are easiest to reorder while every constant still belongs to its own layer.
        "remove_shuffles",
        # Leaves at most one affine map after a PReLU, and none after a real-valued layer.
        "merge_affine",
        # Lets the parts of a binary convolution whose kernel is not ±s absorb batch normalization.
        "affine_into_sums",
        "merge_affine",
        # Leaves a scale before each PReLU and a shift after it ...
        "scale_before_prelu",
        # ... and merges the scale into the layer before the PReLU.
        "merge_affine",
        # After the operations before signs are merged, and before `settle_shifts` moves any that this pass removes.
        "signs_as_thresholds",
        # If a threshold follows max pooling, its batch normalization has to come first for the threshold to be a bias.
        "affine_before_max_pool",
        # Moves the remaining shifts: those of thresholds, of RPReLUs and of batch normalization.
        "settle_shifts",
        # Moved shifts may leave consecutive affine maps, or some that do nothing.
        "merge_affine",
        # After all passes that look for additions. Only XNNPACK profits.
        *(["split_before_add"] if options.device in WITH_XNNPACK else []),
        # After all passes that handle PReLUs.
        *(["signs_before_prelu"] if in_int8 else []),
        # C code has a fast kernel for int8 PReLUs of any slopes.
        *(["prelu_as_maximum", "prelu_of_any_slope"] if in_int8 and options.device != "microcontroller" else []),
        # Late, because all other passes work on whole layers.
        "split_groups" if options.kernel == "portable" else "split_unpackable_groups",
        # Only a convolution per group reads its channels in any order, and only XNNPACK restores the order fast.
        *(["shuffles_in_pieces"] if options.kernel == "portable" and options.device in WITH_XNNPACK else []),
        # After `shuffles_in_pieces`, which knows pooling only. Only XNNPACK profits.
        *(["halve_by_resizing"] if options.device in WITH_XNNPACK else []),
        # After all passes that move affine maps.
        *(["keep_scales_before_dense"] if options.weights == "int8" else []),
        # Last, because `merge_affine` would undo it.
        *([SCALES] if options.hybrid else []),
    ]
