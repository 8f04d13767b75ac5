"""What feeds what in a network: convolutions and norms, found in a recorded forward pass.

The pass runs over a copy without data where the network allows it. A weight is followed by its
storage rather than by its module, so that a convolution counts as such only where the parameter
itself is what PyTorch's function is called with: a weight that the layer standardises or masks
first is not taken for one.
"""

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..layers.deform import DeformConv2d
from ..measure.data_free import data_free, without_data
from ..measure.functions import watched
from ..measure.walk import tensors

CONVOLUTIONS = {f"aten.conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
# function -> positions of the weight and of the bias among its arguments
LAYERS = {**dict.fromkeys((*CONVOLUTIONS, "aten.linear"), (1, 2))}
LAYERS["torchvision.deform_conv2d"] = (1, 4)


class Pair(NamedTuple):
    """A layer and the batch norm that alone reads its output."""

    weight: str  # the layer's weight, as a parameter's name
    norm: str  # the norm's name


class Record:
    """One forward pass in evaluation mode; filled by `recorded`."""

    def __init__(self, model: nn.Module) -> None:
        self.called: set[str] = set()  # modules
        self.parameters_read: set[str] = set()
        self._kept: list[Tensor] = []  # alive, so that no storage's address is used twice
        self._reads: Counter[int] = Counter()
        self._producers: dict[int, str] = {}  # storage of an output -> the weight's name
        # every call of a norm and of a layer: what it reads, and what it writes
        self._read_by_norm: defaultdict[str, list[int]] = defaultdict(list)
        self._written_by: defaultdict[str, list[int]] = defaultdict(list)
        self._names: defaultdict[int, list[str]] = defaultdict(list)
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            self._names[self._storage(tensor)].append(name)
        for name, module in model.named_modules():
            module.register_forward_hook(self._leave(name))

    def pairs(self) -> list[Pair]:
        """Return the layers whose every output is read by one norm, and by nothing else.

        A layer that is called several times, or a norm, belongs to a pair only if all its calls
        do.
        """
        found = []
        for norm, inputs in self._read_by_norm.items():
            weights = {self._producers.get(storage) for storage in inputs}
            weight = weights.pop() if len(weights) == 1 else None
            if (
                weight is not None
                and all(self._reads[storage] == 1 for storage in inputs)
                and sorted(self._written_by[weight]) == sorted(inputs)
            ):
                found.append(Pair(weight, norm))
        return found

    def observe(self, function: str, args: tuple[Any, ...], out: Any) -> None:
        """Note what a function reads and writes."""
        for tensor in tensors(args):
            storage = self._storage(tensor)
            self._reads[storage] += 1
            self.parameters_read.update(self._names.get(storage, ()))
        if function in LAYERS:
            self._layer(function, args, out)
        elif function == "aten.batch_norm" and not args[5]:
            mean = self._name(args[3])
            if mean.endswith("running_mean"):
                norm = mean.rpartition(".")[0]
                self._read_by_norm[norm].append(self._storage(args[0]))

    def returned(self, out: Any) -> None:
        """Note that the network returns these tensors: the caller reads them."""
        for tensor in tensors(out):
            self._reads[self._storage(tensor)] += 1

    def _layer(self, function: str, args: tuple[Any, ...], out: Tensor) -> None:
        at, bias_at = LAYERS[function]
        weight = self._name(args[at])
        bias = args[bias_at] if len(args) > bias_at else None
        # torchvision's function is given zeros by layers without a bias
        is_own = bias is None or function.startswith("torchvision") or self._name(bias)
        # the channels of a linear layer's tokens are not where a norm has its own
        if weight and is_own and (function != "aten.linear" or out.ndim == 2):
            self._produces(weight, out)

    def _produces(self, weight: str, out: Tensor) -> None:
        storage = self._storage(out)
        self._producers[storage] = weight
        self._written_by[weight].append(storage)

    def _leave(self, name: str) -> Any:
        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self.called.add(name)
            if isinstance(module, DeformConv2d):
                # its own arithmetic depends on the device: the layer counts as one function
                self._reads[self._storage(out)] = 0
                self._produces(f"{name}.conv.weight" if name else "conv.weight", out)

        return leave

    def _name(self, tensor: Any) -> str:
        """Return a tensor's only name among parameters and buffers, or ""."""
        names = self._names.get(self._storage(tensor), []) if isinstance(tensor, Tensor) else []
        return names[0] if len(names) == 1 else ""

    def _storage(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.untyped_storage()._cdata


def recorded(model: nn.Module, image: tuple[int, int, int]) -> Record:
    """Return the record of a forward pass of one image (channels, height, width).

    Raises UsageError if the network cannot take it.
    """

    def run(device: str) -> Record:
        copy = data_free(model, device)
        record = Record(copy)
        record.returned(watched(copy, torch.zeros(1, *image, device=device), record.observe))
        return record

    return without_data(run, model, image)
