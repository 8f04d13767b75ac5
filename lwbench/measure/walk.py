"""A network's recorded forward pass: products, module calls, lives of tensors, functions.

It runs over a copy without data where the network allows it (`measure.data_free`). The
original is not touched.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ..layers.deform import DeformConv2d
from .data_free import data_free, without_data
from .functions import visible_attention, watched
from .fvcore import Fvcore
from .operators import (
    ARITHMETIC,
    CONVOLUTIONS,
    MOVES,
    NORMS,
    PRODUCTS,
    deformable,
    sampling_operations,
)


class Step(NamedTuple):
    """A convolution or matrix product: by which module, how many multiply-accumulates."""

    module: str  # the innermost module whose forward ran it
    is_convolution: bool
    macs: int
    outputs: int  # elements written


class Call(NamedTuple):
    """A call of a module: the module, and the shapes of its first input and output tensor."""

    name: str
    module: nn.Module
    in_shape: list[int]
    out_shape: list[int]
    is_plain: bool  # one positional argument, a tensor, and a tensor returned


class Touch(NamedTuple):
    """An operator's tensors, by storage: what it reads and writes."""

    reads: list[int]
    writes: list[int]


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def shape_of(value: Any) -> list[int]:
    """Return the shape of the first tensor in `value`, or an empty list."""
    return next((list(tensor.shape) for tensor in tensors(value)), [])


class Walk(TorchDispatchMode):
    """The records of one forward pass; filled by `walked`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names = {module: name for name, module in model.named_modules()}
        self.stack: list[nn.Module] = [model]
        self.steps: list[Step] = []
        self.calls: list[Call] = []  # in the order in which they end
        # module name -> "product", "norm", "arithmetic", "unknown": what its own forward computes
        self.work: defaultdict[str, set[str]] = defaultdict(set)
        self.unknown: Counter[str] = Counter()
        self.sampling = 0
        self.fvcore = Fvcore()
        self.touches: list[Touch] = []
        self.bytes: dict[int, int] = {}  # storage -> size
        self.saved: set[int] = set()  # storages that autograd keeps for a backward pass
        # The address of an expired storage is not reused while a weak reference to it exists.
        self._references: dict[int, StorageWeakRef] = {}
        self.fixed = {self.storage(t) for t in (*model.parameters(), *model.buffers())}
        for module in self.names:
            module.register_forward_pre_hook(self._enter)
        self._leaving = [
            module.register_forward_hook(self._leave, with_kwargs=True) for module in self.names
        ]

    def storage(self, tensor: Tensor) -> int:
        """Return a tensor's storage as a number that is unique for the whole walk."""
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        self._references.setdefault(reference.cdata, reference)
        self.bytes[reference.cdata] = storage.nbytes()
        return reference.cdata

    def save(self, tensor: Tensor) -> None:
        """Note, as a pack hook, what autograd keeps; no backward pass will ask for it."""
        self.saved.add(self.storage(tensor))

    def watch_functions(self, x: Tensor) -> None:
        """Run the network again, for the rule that counts functions before they are decomposed."""
        for hook in self._leaving:
            hook.remove()
        for module in self.names:
            module.register_forward_hook(self._function_ends)
        watched(self.model, x, self._function)

    def _function(self, function: str, args: tuple[Any, ...], out: Any) -> None:
        if not isinstance(self.stack[-1], DeformConv2d):
            self.fvcore.add(self.names[self.stack[-1]], function, args, out)

    def _function_ends(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        self.stack.pop()
        if isinstance(module, DeformConv2d):
            self.fvcore.counts[self.names[module]] += out.numel() * module.conv.weight[0].numel()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.stack.append(module)

    def _leave(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        self.stack.pop()
        name = self.names[module]
        is_plain = len(args) == 1 and isinstance(args[0], Tensor) and isinstance(out, Tensor)
        self.calls.append(Call(name, module, shape_of((args, kwargs)), shape_of(out), is_plain))
        if isinstance(module, DeformConv2d):
            self._deformable_layer(name, module, out)

    def _deformable_layer(self, name: str, layer: DeformConv2d, y: Tensor) -> None:
        """Count our layer as the convolution that it replaces; its branches are modules."""
        macs = y.numel() * layer.conv.weight[0].numel()
        self.steps.append(Step(name, True, macs, y.numel()))
        self.work[name].add("product")
        points = y.numel() // y.shape[1] * layer.points
        self.sampling += sampling_operations(points, layer.conv.in_channels, masked=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        reads = [self.storage(t) for t in tensors((args, kwargs))]
        self.touches.append(Touch(reads, [self.storage(t) for t in tensors(out)]))
        # a deformable layer's own operators depend on its backend: it is counted as a whole
        if not isinstance(self.stack[-1], DeformConv2d):
            self._operator(str(getattr(func, "overloadpacket", func)), args, out)
        return out

    def _operator(self, operator: str, args: tuple[Any, ...], out: Any) -> None:
        name = self.names[self.stack[-1]]
        count = CONVOLUTIONS.get(operator) or PRODUCTS.get(operator)
        if count is not None:
            y = next(tensors(out))
            self.steps.append(Step(name, operator in CONVOLUTIONS, count(args, y), y.numel()))
            self.work[name].add("product")
            if count is deformable:
                points = y.numel() // y.shape[1] * args[1][0, 0].numel()
                self.sampling += sampling_operations(points, args[0].shape[1], bool(args[-1]))
            return
        in_place = operator.rstrip("_")  # add_ is add
        if in_place in NORMS:
            self.work[name].add("norm")
        elif in_place in ARITHMETIC:
            self.work[name].add("arithmetic")
        elif in_place not in MOVES:
            self.unknown[operator] += 1
            self.work[name].add("unknown")


def walked(model: nn.Module, image: tuple[int, int, int]) -> Walk:
    """Return the records of a forward pass of one image (channels, height, width).

    Raises UsageError if the network cannot take it.
    """
    return without_data(lambda device: _pass(model, image, device), model, image)


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
        with hooks, visible_attention(), walk:
            out = model(x)
        walk.watch_functions(x)
    # the image is alive from the start, and the output until the end
    walk.touches.insert(0, Touch([], [walk.storage(x)]))
    walk.touches.append(Touch([walk.storage(t) for t in tensors(out)], []))
    return walk
