"""One forward pass over a copy of a network: steps, tensors' lives, unknown operators.

The copy holds no data (meta device) where the network allows it, so that a pass over VGG16 costs
milliseconds and no memory; where it does not (a tensor that is no parameter or buffer, a value read
back into Python) the pass runs on the CPU. The original is not touched.
"""

import contextlib
import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UsageError
from ..layers.deform import DeformConv2d
from .rules import CONVOLUTIONS, OTHERS, ZERO_COST, Amounts, kind_of

log = logging.getLogger(__name__)
T = TypeVar("T")


class Step(NamedTuple):
    """Something that a rule may count: in which module, of which kind, how much."""

    module: str
    kind: str
    amounts: Amounts


class Call(NamedTuple):
    """A module that was called: its class and the shapes of its first input and output tensor."""

    type: str
    in_shape: list[int]
    out_shape: list[int]


class Touch(NamedTuple):
    """An operator's tensors, by storage: what it reads and writes."""

    reads: list[int]
    writes: list[int]


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def shape_of(value: Any) -> list[int]:
    """The shape of the first tensor in `value`, or an empty list."""
    return next((list(tensor.shape) for tensor in tensors(value)), [])


def convolution(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """aten::convolution(input, weight, bias, stride, padding, dilation, transposed, ...)."""
    x, weight, bias, transposed = args[0], args[1], args[2], args[6]
    swept = x if transposed else out
    return swept.numel() * prod(weight.shape[1:]), 0 if bias is None else out.numel()


def product(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """aten::mm, bmm(a, b): n(y) times the inner size."""
    return out.numel() * args[0].shape[-1], 0


def added_product(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """aten::addmm, baddbmm(c, a, b)."""
    return out.numel() * args[1].shape[-1], 0


def attention(args: tuple[Any, ...], out: Any) -> tuple[int, int]:
    """Fused attention of q (..., L, E), k (..., S, E), v (..., S, V): both products."""
    q, k, v = args[:3]
    return prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]), 0


def deformable(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """torchvision::deform_conv2d(x, weight, offset, mask, bias, ...): a convolution's count."""
    weight, bias = args[1], args[4]
    # torchvision's module hands a bias of zeros over where it has none
    return out.numel() * prod(weight.shape[1:]), 0 if bias is None else out.numel()


COUNTED: dict[str, Callable[[tuple[Any, ...], Any], tuple[int, int]]] = {
    "aten.convolution": convolution,
    "aten.mm": product,
    "aten.bmm": product,
    "aten.mv": product,
    "aten.dot": product,
    "aten.addmm": added_product,
    "aten.addmv": added_product,
    "aten.baddbmm": added_product,
    "aten._scaled_dot_product_flash_attention_for_cpu": attention,
    "aten._scaled_dot_product_fused_attention_overrideable": attention,
    "torchvision.deform_conv2d": deformable,
}


def sampling_operations(points: int, channels: int, masked: bool) -> int:
    """Multiply-accumulates of bilinear sampling at `points` positions in `channels` channels.

    Four weighted corners a sampled value, and one product with the mask where there is one:
    points * channels * (4 + masked), with points = N * OH * OW * K * K. The coordinates' own
    arithmetic, which all channels share, is left out.
    """
    return points * channels * (4 + masked)


class Walk(TorchDispatchMode):
    """Records of one forward pass: see the attributes; filled by `walked`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.stack: list[nn.Module] = [model]
        self.steps: list[Step] = []
        self.calls: dict[str, Call] = {}
        self.unknown: Counter[str] = Counter()
        self.sampling = 0
        self.touches: list[Touch] = []
        self.bytes: dict[int, int] = {}  # storage -> size
        self.saved: set[int] = set()  # storages that autograd keeps for a backward pass
        self.fixed: set[int] = set()  # storages of parameters and buffers
        # an expired storage's address is not given out again while a weak reference to it lives
        self._references: dict[int, StorageWeakRef] = {}
        self.fixed = {self.storage(t) for t in (*model.parameters(), *model.buffers())}
        for module in self.names:
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave, with_kwargs=True)

    def storage(self, tensor: Tensor) -> int:
        """A tensor's storage as a number that stays its own for the whole walk."""
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        self._references.setdefault(reference.cdata, reference)
        self.bytes[reference.cdata] = storage.nbytes()
        return reference.cdata

    def save(self, tensor: Tensor) -> None:
        """A pack hook: notes what autograd keeps, and lets it go (no backward pass will come)."""
        self.saved.add(self.storage(tensor))

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.stack.append(module)

    def _leave(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        self.stack.pop()
        name = self.names[module]
        inputs = (args, kwargs)
        self.calls.setdefault(name, Call(type(module).__name__, shape_of(inputs), shape_of(out)))
        if isinstance(module, DeformConv2d):
            self._deformable_layer(name, module, out)
        elif kind := kind_of(module, OTHERS):
            self._module(name, kind, next(tensors(inputs)), next(tensors(out)))

    def _module(self, name: str, kind: str, x: Tensor, y: Tensor) -> None:
        window = 0
        if kind == "adaptive_avg_pool":
            sizes = zip(x.shape[-2:], y.shape[-2:], strict=True)
            window = y.numel() * prod(size_in // size_out for size_in, size_out in sizes)
        amounts = Amounts(inputs=x.numel(), outputs=y.numel(), window=window)
        self.steps.append(Step(name, kind, amounts))

    def _deformable_layer(self, name: str, layer: DeformConv2d, y: Tensor) -> None:
        """Its main convolution, of which only the weight is used, counts as the module it is."""
        channels = layer.conv.in_channels
        macs = y.numel() * prod(layer.conv.weight.shape[1:])
        self.steps.append(Step(name, "conv2d", Amounts(macs=macs, outputs=y.numel())))
        points = y.numel() // y.shape[1] * layer.points
        self.sampling += sampling_operations(points, channels, masked=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = str(getattr(func, "overloadpacket", func))
        self._touch((args, kwargs), out)
        # what a deformable layer does itself is counted as a whole when it is left
        if not isinstance(self.stack[-1], DeformConv2d):
            self._operator(operator, args, out)
        return out

    def _touch(self, inputs: Any, outputs: Any) -> None:
        reads = [self.storage(t) for t in tensors(inputs)]
        self.touches.append(Touch(reads, [self.storage(t) for t in tensors(outputs)]))

    def _operator(self, operator: str, args: tuple[Any, ...], out: Any) -> None:
        count = COUNTED.get(operator)
        if count is None:
            if operator.rstrip("_") not in ZERO_COST:
                self.unknown[operator] += 1
            return
        module, y = self.stack[-1], next(tensors(out))
        macs, bias = count(args, y)
        kind, bias = self._product_kind(operator, module, y, bias)
        self.steps.append(Step(self.names[module], kind, Amounts(macs, bias, 0, y.numel())))
        if count is deformable:
            points = y.numel() // y.shape[1] * prod(args[1].shape[-2:])
            self.sampling += sampling_operations(points, args[0].shape[1], masked=bool(args[-1]))

    def _product_kind(
        self, operator: str, module: nn.Module, y: Tensor, bias: int
    ) -> tuple[str, int]:
        if operator == "torchvision.deform_conv2d" and type(module).__name__ == "DeformConv2d":
            return "conv2d", 0 if getattr(module, "bias", None) is None else y.numel()
        if operator in ("aten.convolution", "torchvision.deform_conv2d"):
            return kind_of(module, CONVOLUTIONS) or "functional_conv", bias
        if isinstance(module, nn.Linear):
            return "linear", 0 if module.bias is None else y.numel()
        return "matmul", 0


def data_free(model: nn.Module, device: str = "meta") -> nn.Module:
    """A float32 copy of the network in evaluation mode, on a device; on "meta" without its data."""
    model = getattr(model, "_orig_mod", model)  # a compiled network's own
    memo: dict[int, Any] = {}
    if device == "meta":
        # given to deepcopy as copied already, so that no weight is ever held twice
        for tensor in (*model.parameters(), *model.buffers()):
            bare = tensor.detach().to("meta")
            parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if parameter else bare
    return copy.deepcopy(model, memo).to(device).float().eval()


def without_data(run: Callable[[str], T], image: tuple[int, int, int]) -> T:
    """`run("meta")`, or where that fails `run("cpu")`; `image` is (channels, height, width).

    Raises UsageError where the network cannot run on such an image on either.
    """
    try:
        return run("meta")
    except Exception as error:
        log.debug("no pass without data, trying the CPU: %s", error)
    try:
        return run("cpu")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        size = " x ".join(map(str, image))
        raise UsageError(f"the network does not run on a {size} image: {reason}") from error


def walked(model: nn.Module, image: tuple[int, int, int]) -> Walk:
    """The records of a forward pass of one image (channels, height, width).

    Raises UsageError where the network cannot take it.
    """
    return without_data(lambda device: _pass(model, image, device), image)


def _pass(model: nn.Module, image: tuple[int, int, int], device: str) -> Walk:
    model = data_free(model, device)
    x = torch.zeros(1, *image, device=device)
    walk = Walk(model)
    # with gradients, since what autograd keeps is one of the figures; no backward pass is run
    hooks = torch.autograd.graph.saved_tensors_hooks(walk.save, lambda kept: kept)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(hooks)
        stack.enter_context(walk)
        out = model(x)
    walk.touches.insert(0, Touch([], [walk.storage(x)]))
    walk.touches.append(Touch([walk.storage(t) for t in tensors(out)], []))
    return walk
