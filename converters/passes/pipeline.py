"""Deploy: the trained graph in its cheapest exact form, by small passes over an intermediate form.

A file's metadata list the passes that made it, so that `verify` repeats these and not those of a newer version.
"""

from dataclasses import replace

from kbnn.converters.graph.graph import Graph, Pass
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes.affine import affine_into_sums, merge_affine
from kbnn.converters.passes.groups import split_groups, split_unpackable_groups
from kbnn.converters.passes.int8 import in_int8
from kbnn.converters.passes.max_pool import affine_before_max_pool
from kbnn.converters.passes.normalization import scale_before_prelu
from kbnn.converters.passes.options import WITH_XNNPACK, Options
from kbnn.converters.passes.prelu_int8 import prelu_as_maximum
from kbnn.converters.passes.shifts import settle_shifts
from kbnn.converters.passes.shuffles import remove_shuffles
from kbnn.converters.passes.split_add import split_before_add
from kbnn.converters.passes.thresholds import signs_as_thresholds
from kbnn.errors import KbnnError

PASSES: dict[str, Pass] = {
    function.__name__: function
    for function in (
        affine_before_max_pool,
        affine_into_sums,
        merge_affine,
        prelu_as_maximum,
        remove_shuffles,
        scale_before_prelu,
        settle_shifts,
        signs_as_thresholds,
        split_before_add,
        split_groups,
        split_unpackable_groups,
    )
}


# The lifting rules count as the first pass. A pass whose results change gets another name here, such as `name@2`.
LIFTING = "lift@3"


def with_passes(options: Options, in_int8: bool = False) -> Options:
    """The options with the names of the passes that they call for, which a file's metadata then hold.

    Args:
        options: what `convert` was asked for.
        in_int8: whether activations are to be int8; their ranges are known only when the passes have run.
    """
    return replace(options, passes=tuple(_names(options, in_int8)))


def deploy(reference: Reference, options: Options) -> Graph:
    """The graph that the converter gets for a model: by the passes that `options` name, else by those that fit.

    Raises:
        KbnnError: the options name a pass that this version of kbnn does not have.
    """
    names = options.passes or with_passes(options).passes
    missing = [name for name in names if name != LIFTING and name not in PASSES]
    if missing or LIFTING not in names:
        raise KbnnError(
            f"the file was made by another version of kbnn: this one has {LIFTING} and no pass "
            f"{', '.join(missing) or 'more'}, received {', '.join(names)}; convert the model again"
        )
    graph = lift(reference)
    for name in names:
        graph = PASSES[name](graph) if name != LIFTING else graph
    return in_int8(graph, options.limits) if options.limits else graph


def _names(options: Options, in_int8: bool) -> list[str]:
    """The passes in order, each with the reason for its place."""
    return [
        LIFTING,
        # First: an order of channels is easiest to change while every constant still belongs to its own layer.
        "remove_shuffles",
        # A PReLU is followed by at most one affine map then, and real-valued layers have taken theirs.
        "merge_affine",
        # The parts of a binary convolution whose kernel is not ±s then take in batch normalization.
        "affine_into_sums",
        "merge_affine",
        # Leaves a scale before each PReLU and a shift after it ...
        "scale_before_prelu",
        # ... and the scale joins the layer before the PReLU.
        "merge_affine",
        # All that stands before a sign is as short as it gets; what the sign does not need must not be moved about.
        "signs_as_thresholds",
        # A max-pool before a threshold needs its batch normalization in front, as the threshold is to be a bias.
        "affine_before_max_pool",
        # Every shift that is left wants a place: thresholds, RPReLU's, those of batch normalization.
        "settle_shifts",
        # Settled shifts may leave affine maps side by side, or some that do nothing.
        "merge_affine",
        # After all passes that look for additions. It pays only with XNNPACK.
        *(["split_before_add"] if options.device in WITH_XNNPACK else []),
        # After all passes that know what a PReLU is.
        *(["prelu_as_maximum"] if in_int8 else []),
        # Last, as every other pass works on whole layers.
        "split_groups" if options.kernel == "portable" else "split_unpackable_groups",
    ]
