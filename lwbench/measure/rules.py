"""Counting rules by name: what each published way of counting MACs counts.

Papers state "MACs" or "FLOPs" without saying which tool counted them, and the tools differ in
biases, norms, activations and pooling. A network is walked once (`measure.walk`); a rule says what
each module of the walk counts.
"""

from collections import defaultdict
from collections.abc import Callable

from .tools import PTFLOPS, THOP_2020, TORCHSTAT, Tool
from .walk import Walk


def plain(walk: Walk) -> dict[str, int]:
    """Count convolutions and matrix products, which is what papers mostly print."""
    counts: defaultdict[str, int] = defaultdict(int)
    for step in walk.steps:
        counts[step.module] += step.macs
    return counts


def conv_only(walk: Walk) -> dict[str, int]:
    """Count convolutions alone, without the classifier, as the ShuffleNet paper does."""
    counts: defaultdict[str, int] = defaultdict(int)
    for step in walk.steps:
        counts[step.module] += step.macs if step.is_convolution else 0
    return counts


# the rules that bear a tool's name, at the versions that `measure.tools` states
TOOLS: dict[str, Tool] = {"thop2020": THOP_2020, "torchstat": TORCHSTAT, "ptflops": PTFLOPS}


def fvcore(walk: Walk) -> dict[str, int]:
    """Count as fvcore does, which does not hook modules but functions: see `measure.fvcore`."""
    return walk.fvcore.counts


# rule -> its counts by module name
RULES: dict[str, Callable[[Walk], dict[str, int]]] = {
    "plain": plain,
    "conv_only": conv_only,
    **{name: tool.counts for name, tool in TOOLS.items()},
    "fvcore": fvcore,
}
