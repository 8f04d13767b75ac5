"""What a network costs: parameters, MACs under each named rule, activations and memory.

The counts reproduce what published tables print, each under the rule it was counted with
(`measure.rules`). Other counters are run for comparison in `measure.counters`.
"""

from collections import defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass

from torch import nn

from .memory import FLOAT32, peak_bytes, saved_bytes
from .rules import RULES, TOOLS
from .walk import Walk, walked


@dataclass(frozen=True)
class Layer:
    """One module's part: its own parameters, the shapes of its first call, MACs per rule.

    Functions that a module's forward calls count as its own. `name` is "" for the network itself.
    """

    name: str
    type: str
    params: int
    in_shape: list[int]
    out_shape: list[int]
    macs: dict[str, int]


@dataclass(frozen=True)
class Complexity:
    """Counts for one image (batch 1, float32, evaluation mode); plain numbers throughout."""

    params: int  # parameter elements, shared ones once
    buffers: int  # buffer elements (running statistics)
    macs: dict[str, int]  # rule -> count
    not_covered: dict[str, dict[str, int]]  # rule of a tool -> what it counts as 0 -> calls
    pointwise: int  # plain MACs in 1 x 1 convolutions, grouped ones included
    depthwise: int  # plain MACs in depthwise convolutions
    deform_sampling: int  # operations of deformable layers' sampling: in no rule
    activations: int  # output elements of convolutions, linear layers and matrix products
    peak_bytes: int  # computed peak of a forward pass, weights included: `memory.peak_bytes`
    saved_bytes: int  # what autograd keeps for a backward pass: `memory.saved_bytes`
    out_shape: list[int]  # of the output, the first one if there are several
    unknown: dict[str, int]  # operators that no rule knows, not counted -> times
    layers: list[Layer]  # in the order of their first call

    def __str__(self) -> str:
        """The figures and the layers as a table."""
        rules = "\n".join(f"  {rule:<12}{value:>16,}" for rule, value in self.macs.items())
        head = f"parameters    {self.params:>16,}\nMACs by rule\n{rules}\n"
        rows = [("layer", "type", "parameters", "MACs (plain)", "output")]
        for layer in self.layers:
            out = " x ".join(map(str, layer.out_shape))
            rows.append(
                (layer.name or "(the network)", layer.type, f"{layer.params:,}",
                 f"{layer.macs.get('plain', 0):,}", out)
            )  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return head + "\n".join(
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {params:>{widths[2]}}  "
            f"{macs:>{widths[3]}}  {out}"
            for name, kind, params, macs, out in rows
        )

    def training_bytes(self, batch_size: int, optimizer_states_per_param: int = 1) -> int:
        """Estimate what training in float32 needs, in bytes, beside interpreter and libraries.

        Weights, gradients and the optimizer's states (SGD with momentum 1 per parameter, Adam 2);
        per image, what autograd keeps and the working tensors of the largest moment, whose
        gradients are as large as they are. Interpreter, torch and torchvision take another 0.7 to
        0.8 GiB. On a CPU the peak of LDC3, MobileNetV3-Small, MobileNetV2 and ResNet-50 was within
        20 % of this where the allocator returned freed memory (MALLOC_MMAP_THRESHOLD_=262144, or
        tensors above 32 MiB); with glibc's defaults and small batches, fragmentation adds up to two
        thirds.
        """
        fixed = FLOAT32 * (self.params + self.buffers)
        working = self.peak_bytes - fixed
        states = FLOAT32 * self.params * (1 + optimizer_states_per_param)
        return fixed + states + batch_size * (self.saved_bytes + working)


def count(model: nn.Module, *, image_size: int = 224, in_channels: int = 3) -> Complexity:
    """Count the cost of a forward pass of one (in_channels, image_size, image_size) image.

    The network itself is neither run nor changed; its train or eval mode makes no difference.
    Deformable layers count as the convolution that they replace, plus their branches; their
    sampling, N * OH * OW * K * K * C * (4 corners + 1 with a mask) operations, is
    `deform_sampling`. Raises UsageError if the network cannot take the image, and its subclass
    DataNeededError if it has to be built with its data first.
    """
    return complexity(walked(model, (in_channels, image_size, image_size)))


def complexity(walk: Walk) -> Complexity:
    """Return the counts of a recorded forward pass."""
    model = walk.model
    counts = {name: rule(walk) for name, rule in RULES.items()}
    return Complexity(
        params=sum(parameter.numel() for parameter in model.parameters()),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        macs={name: sum(by_module.values()) for name, by_module in counts.items()},
        not_covered={name: tool.not_covered(walk) for name, tool in TOOLS.items()}
        | {"fvcore": dict(walk.fvcore.not_covered.most_common())},
        pointwise=_macs_in(walk, lambda conv: conv.kernel_size == (1, 1)),
        depthwise=_macs_in(walk, lambda conv: conv.groups == conv.in_channels > 1),
        deform_sampling=walk.sampling,
        activations=sum(step.outputs for step in walk.steps),
        peak_bytes=peak_bytes(walk),
        saved_bytes=saved_bytes(walk),
        out_shape=walk.calls[-1].out_shape,  # the network's own call ends last
        unknown=dict(sorted(walk.unknown.items())),
        layers=_layers(walk, counts),
    )


def _macs_in(walk: Walk, chosen: Callable[[nn.Conv2d], bool]) -> int:
    """Return the plain MACs of the convolution modules that are chosen."""
    modules = {name: module for module, name in walk.names.items()}
    found = ((modules[step.module], step.macs) for step in walk.steps)
    return sum(macs for m, macs in found if isinstance(m, nn.Conv2d) and chosen(m))


def _layers(walk: Walk, counts: dict[str, dict[str, int]]) -> list[Layer]:
    """Return the modules that have parameters or a count, in the order of their first call."""
    first = {call.name: call for call in reversed(walk.calls)}
    order = {name: index for index, name in enumerate(dict.fromkeys(c.name for c in walk.calls))}
    params: dict[str, int] = defaultdict(int)
    for name, parameter in walk.model.named_parameters():
        params[_owner(name, first)] += parameter.numel()
    counted = {name for by_module in counts.values() for name, value in by_module.items() if value}
    layers = []
    for name in sorted(params.keys() | counted, key=lambda name: order.get(name, len(order))):
        call = first.get(name)
        layers.append(
            Layer(
                name,
                "not called" if call is None else type(call.module).__name__,
                params[name],
                [] if call is None else call.in_shape,
                [] if call is None else call.out_shape,
                {rule: by_module.get(name, 0) for rule, by_module in counts.items()},
            )
        )
    return layers


def _owner(parameter: str, called: Container[str]) -> str:
    """Return the called module that a parameter belongs to.

    The nearest enclosing one if its own module was never called (a deformable layer's convolution,
    of which only the weight is used).
    """
    module = parameter.rpartition(".")[0]
    owner = module
    while owner and owner not in called:
        owner = owner.rpartition(".")[0]
    return owner or ("" if "." not in parameter else module)
