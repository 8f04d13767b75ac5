"""The counts of published tools, layer type by layer type, as those tools compute them.

thop of 2020 (0.0.31.post2005241907), torchstat 0.0.7 and ptflops 0.6.4 hook modules and apply a
formula by the module's class; they see neither functions (F.conv2d, the @ operator) nor classes
that they do not list. The formulas were written from the tools' sources, peculiarities included,
and `scripts/golden_rules.py` records what the tools themselves print for the tests to compare.

Two additions: our deformable layer counts as the convolution that it replaces, as the
implementation did that ldc counted, and a subclass of ours counts as the torch class it extends.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from ..layers.deform import DeformConv2d
from .walk import Call, Walk

# Takes the module and its call; returns None where the tool fails or warns that it counts nothing.
Formula = Callable[[Any, Call], int | None]


@dataclass(frozen=True)
class Tool:
    """A tool that hooks modules: its formulas, and how it finds and adds modules."""

    formulas: dict[type[nn.Module], Formula]
    subclasses: bool = False  # a class also stands for its subclasses
    leaves: bool = False  # only modules without children are hooked
    last_call: bool = False  # a module that is called several times counts its last call only
    hooks_every_place: bool = False  # a module that is shared by parents is hooked once for each
    plain_calls: bool = False  # fails on calls with several arguments or results
    knows_deformable: bool = True  # our deformable layer counts as a convolution

    def formula(self, module: nn.Module) -> Formula | None:
        """Return the formula that the tool applies to a module, or None if it has none."""
        if self.leaves and any(True for _ in module.children()):
            return None
        kind = _torch_class(module)
        if not self.subclasses:
            return self.formulas.get(kind)
        return next((f for known, f in self.formulas.items() if issubclass(kind, known)), None)

    def counts(self, walk: Walk) -> dict[str, int]:
        """Return what the tool counts, by module name."""
        places = _places(walk.model, self) if self.hooks_every_place else {}
        counts: defaultdict[str, int] = defaultdict(int)
        for call in walk.calls:
            count = self._count(call) or 0
            if self.last_call:
                counts[call.name] = count
            else:
                # hooked once per place, and the result is added up once per place
                counts[call.name] += count * places.get(call.module, 1) ** 2
        return counts

    def _count(self, call: Call) -> int | None:
        module = call.module
        if isinstance(module, DeformConv2d) and self.knows_deformable:
            module = module.conv
        formula = self.formula(module)
        if formula is None or (self.plain_calls and not call.is_plain):
            return None
        return formula(module, call)

    def not_covered(self, walk: Walk) -> dict[str, int]:
        """Return the classes that compute something the tool counts as nothing, with their calls.

        A module of several layers is listed only if its own forward computes products or norms:
        functions such as additions and activations are outside every tool's view.
        """
        missing: Counter[str] = Counter()
        for call in walk.calls:
            work = walk.work.get(call.name, set())
            is_leaf = not any(True for _ in call.module.children())
            if self._count(call) is None and (work if is_leaf else work & {"product", "norm"}):
                missing[type(call.module).__name__] += 1
        return dict(missing.most_common())


def _torch_class(module: nn.Module) -> type[nn.Module]:
    """Return the class by which tools know a module: for a class of ours, the torch class below."""
    return next(c for c in type(module).__mro__ if not c.__module__.startswith("lwbench."))


def _places(root: nn.Module, tool: Tool) -> Counter[nn.Module]:
    """Return in how many places of the module tree the tool meets each module."""
    places: Counter[nn.Module] = Counter()

    def visit(module: nn.Module) -> None:
        for child in module.children():
            places[child] += 1
            if tool.formula(child) is None:  # the tool does not look inside what it counts
                visit(child)

    visit(root)
    return places


# Formulas. x and y are the shapes of a call's first input and output.


def _nothing(module: Any, call: Call) -> int:
    return 0


def _inputs(module: Any, call: Call) -> int:
    return prod(call.in_shape)


def _outputs(module: Any, call: Call) -> int:
    return prod(call.out_shape)


def _twice_the_inputs(module: Any, call: Call) -> int:
    return 2 * prod(call.in_shape)


def _affine_norm(module: Any, call: Call) -> int:
    """Scaling by the statistics, and once more by the weights if there are any."""
    return prod(call.in_shape) * (2 if module.affine else 1)


def _conv_thop(module: Any, call: Call) -> int:
    kernel = module.in_channels // module.groups * prod(module.weight.shape[2:])
    return prod(call.out_shape) * (kernel + (module.bias is not None))


def _conv_ptflops(module: Any, call: Call) -> int:
    positions = call.in_shape[0] * prod(call.out_shape[2:])
    kernels = prod(module.kernel_size) * module.in_channels
    macs = positions * kernels * (module.out_channels // module.groups)
    return macs + (module.out_channels * positions if module.bias is not None else 0)


def _linear_thop(module: Any, call: Call) -> int:
    return module.in_features * prod(call.out_shape)


def _linear_ptflops(module: Any, call: Call) -> int:
    """The bias once, not once per token."""
    outputs = call.out_shape[-1]
    return prod(call.in_shape) * outputs + (outputs if module.bias is not None else 0)


def _linear_torchstat(module: Any, call: Call) -> int | None:
    """torchstat stops at inputs that are not (batch, features), such as tokens."""
    if len(call.in_shape) != 2:
        return None
    return prod(call.in_shape) * call.out_shape[1]


def _adaptive_pool_thop(module: Any, call: Call) -> int | None:
    """The additions of a window of whole size, and one division, per output element."""
    sizes = call.in_shape[2:]
    size_out = module.output_size
    sizes_out = [size_out] * len(sizes) if isinstance(size_out, int) else list(size_out)
    if None in sizes_out:  # "as the input": thop fails
        return None
    window = prod(size // out for size, out in zip(sizes, sizes_out, strict=True))
    return (window + 1) * prod(call.out_shape)


def _upsample_thop(module: Any, call: Call) -> int | None:
    """thop warns of other modes (trilinear, area, nearest-exact) and counts nothing for them."""
    per_output = {"nearest": 0, "linear": 5, "bilinear": 11, "bicubic": 224 + 35}
    if module.mode not in per_output:
        return None
    return per_output[module.mode] * prod(call.out_shape)


def _upsample_torchstat(module: Any, call: Call) -> int:
    """torchstat leaves the channels out."""
    return call.in_shape[0] * prod(call.out_shape[2:])


def _maps_only(formula: Formula) -> Formula:
    """torchstat stops at convolutions, norms and pools whose input is not (N, C, H, W)."""

    def checked(module: Any, call: Call) -> int | None:
        return formula(module, call) if len(call.in_shape) == 4 else None

    return checked


# Recurrent layers. thop counts products, biases and elementwise steps of each gate; ptflops counts
# the sizes of the weights, and leaves out that upper layers of a bidirectional network have two
# inputs.


def _cell_thop(kind: type[nn.Module], inputs: int, hidden: int, bias: bool) -> int:
    gates = {nn.RNNCell: 1, nn.GRUCell: 3, nn.LSTMCell: 4}[kind]
    elementwise = {nn.RNNCell: 0, nn.GRUCell: 4, nn.LSTMCell: 4}[kind]
    gate = hidden * (inputs + hidden) + hidden + (2 * hidden if bias else 0)
    return gates * gate + elementwise * hidden


def _recurrent_cell_thop(module: Any, call: Call) -> int:
    cell = _cell_thop(type(module), module.input_size, module.hidden_size, module.bias)
    return cell * call.in_shape[0]


def _recurrent_thop(module: Any, call: Call) -> int:
    kind = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}[type(module)]
    directions = 2 if module.bidirectional else 1
    hidden = module.hidden_size
    first = _cell_thop(kind, module.input_size, hidden, module.bias)
    upper = _cell_thop(kind, directions * hidden, hidden, module.bias)
    layers = first + (module.num_layers - 1) * upper
    return directions * layers * call.in_shape[0] * call.in_shape[1]


def _elementwise_ptflops(module: Any) -> int:
    if isinstance(module, nn.RNN | nn.RNNCell):
        return 1
    return 7 if isinstance(module, nn.GRU | nn.GRUCell) else 10


def _recurrent_cell_ptflops(module: Any, call: Call) -> int:
    sizes = module.weight_ih.numel() + module.weight_hh.numel()
    biases = module.bias_ih.numel() + module.bias_hh.numel() if module.bias else 0
    elementwise = _elementwise_ptflops(module) * module.hidden_size
    return (sizes + biases + elementwise) * call.in_shape[0]


def _recurrent_ptflops(module: Any, call: Call) -> int:
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    layers = range(module.num_layers)
    sizes = sum(getattr(module, f"{name}_l{layer}").numel() for layer in layers for name in names)
    elementwise = module.num_layers * _elementwise_ptflops(module) * module.hidden_size
    directions = 2 if module.bidirectional else 1
    return directions * (sizes + elementwise) * call.in_shape[0] * call.in_shape[1]


_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVG_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_MAX = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_ADAPTIVE_AVG = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.ELU, nn.LeakyReLU)
_RECURRENT = (nn.RNN, nn.GRU, nn.LSTM)
_CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)

THOP_2020 = Tool(
    {
        **dict.fromkeys(_CONVOLUTIONS, _conv_thop),
        **dict.fromkeys((*_BATCH_NORMS, nn.SyncBatchNorm), _twice_the_inputs),
        **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.ZeroPad2d, nn.Dropout), _nothing),
        nn.LeakyReLU: _inputs,
        **dict.fromkeys((*_MAX_POOLS, *_ADAPTIVE_MAX), _nothing),
        **dict.fromkeys(_AVG_POOLS, _outputs),
        **dict.fromkeys(_ADAPTIVE_AVG, _adaptive_pool_thop),
        nn.Linear: _linear_thop,
        nn.Upsample: _upsample_thop,
        nn.UpsamplingBilinear2d: _upsample_thop,
        nn.UpsamplingNearest2d: _upsample_thop,
        **dict.fromkeys(_CELLS, _recurrent_cell_thop),
        **dict.fromkeys(_RECURRENT, _recurrent_thop),
    },
    hooks_every_place=True,
)
TORCHSTAT = Tool(
    {
        nn.Conv2d: _maps_only(_conv_ptflops),
        nn.BatchNorm2d: _maps_only(_affine_norm),
        nn.AvgPool2d: _maps_only(_inputs),
        nn.MaxPool2d: _maps_only(_inputs),
        **dict.fromkeys(_RECTIFIERS, _inputs),
        nn.Upsample: _upsample_torchstat,
        nn.Linear: _linear_torchstat,
    },
    subclasses=True,
    leaves=True,
    last_call=True,
    plain_calls=True,
)
PTFLOPS = Tool(
    {
        **dict.fromkeys(_CONVOLUTIONS, _conv_ptflops),
        **dict.fromkeys(_RECTIFIERS, _outputs),
        **dict.fromkeys((*_MAX_POOLS, *_AVG_POOLS, *_ADAPTIVE_MAX, *_ADAPTIVE_AVG), _inputs),
        **dict.fromkeys(_BATCH_NORMS, _affine_norm),
        nn.Linear: _linear_ptflops,
        nn.Upsample: _outputs,
        **dict.fromkeys(_CELLS, _recurrent_cell_ptflops),
        **dict.fromkeys(_RECURRENT, _recurrent_ptflops),
    }
)
