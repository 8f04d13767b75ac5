"""A pass of a network, seen function by function, before PyTorch decomposes them.

In a pass without gradients an operator such as aten::linear, batch_norm or
scaled_dot_product_attention reaches the dispatch mode as one call, as it is in a traced graph;
in a pass with gradients it arrives as the operators that it is made of.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Takes a function's name such as "aten.linear", its arguments and its result.
Observer = Callable[[str, tuple[Any, ...], Any], None]


class _Watch(TorchDispatchMode):
    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        function = str(getattr(func, "overloadpacket", func))
        if function == "aten.batch_norm" and args[0].is_meta and not args[5]:
            # without data only the shape counts; PyTorch's own way to it takes half of the pass
            out = torch.empty_like(args[0])
        else:
            out = func(*args, **(kwargs or {}))
        self.observer(function, args, out)
        return out


def watched(model: nn.Module, x: Tensor, observer: Observer) -> Any:
    """Run the network on `x` and show every function to `observer`; returns the output."""
    with torch.inference_mode(), visible_attention(), _Watch(observer):
        return model(x)


@contextlib.contextmanager
def visible_attention() -> Iterator[None]:
    """Inside the `with` block, attention layers call the functions that they are made of.

    In evaluation mode, nn.MultiheadAttention and nn.TransformerEncoderLayer would otherwise run
    one fused operator for the whole layer, its linear layers and norms included.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
