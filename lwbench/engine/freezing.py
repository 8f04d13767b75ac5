"""Fine-tuning: parameters that are not trained, and a learning rate of the last layer's own."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from ..errors import UsageError, nearest


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Exclude the parameters that match a pattern (`stem.*`) from training; return their names.

    Raises UsageError for a pattern that matches none, and where nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            hint = nearest(pattern, [*names, *{name.partition(".")[0] + ".*" for name in names}])
            raise UsageError(f"freeze={pattern}: no parameter of this network matches{hint}")
        frozen |= found
    if len(frozen) == len(names):
        raise UsageError(f"freeze={','.join(patterns)}: no parameter is left to train")
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return [name for name in names if name in frozen]


def train_mode(model: nn.Module) -> None:
    """Set the model to train mode, but norms with frozen parameters to evaluation mode.

    A batch norm whose scale and shift are frozen also normalises by its stored statistics and
    leaves them: with statistics of the batch, a frozen layer would still change what it computes.
    Dropout is active everywhere.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        has_statistics = getattr(module, "running_mean", None) is not None
        if has_statistics and own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def last_layer(model: nn.Module, num_classes: int) -> nn.Module:
    """Return the last linear layer or convolution with an output per class.

    Raises UsageError for a network without one.
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    for layer in reversed(layers):
        if len(layer.weight) == num_classes:
            return layer
    raise UsageError(
        f"head_lr_factor: this network has no layer with {num_classes} outputs, one per class"
    )


def scale_last_layer(
    optimizer: torch.optim.Optimizer, model: nn.Module, num_classes: int, factor: float
) -> None:
    """Give the last layer `factor` times the learning rate; call it before the first step.

    Raises UsageError as `last_layer` does.
    """
    # by identity: tensors compare element by element
    last = {id(parameter) for parameter in last_layer(model, num_classes).parameters()}
    for group in list(optimizer.param_groups):
        inside = [parameter for parameter in group["params"] if id(parameter) in last]
        if not inside:
            continue
        scaled = {key: value for key, value in group.items() if key != "params"}
        scaled["lr_factor"] *= factor
        group["params"] = [p for p in group["params"] if id(p) not in last]
        optimizer.add_param_group({"params": inside, **scaled})
    # a group of the last layer alone is empty now
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
