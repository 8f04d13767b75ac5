"""The deploy form of a network: batch norms folded, branches merged, training's parts removed.

Outputs stay the same up to rounding. What is folded is decided from a recorded forward pass (see
`deploy.record`), so that it works for any network that runs.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from ..errors import UsageError
from .record import Pair, Record, recorded

# methods by which networks merge parallel branches, the first that a module has
HOOKS = ("fuse", "reparameterize", "switch_to_deploy")
# layers of timm and torchvision that do nothing in evaluation mode
DROPOUTS = ("DropPath", "DropBlock2d", "StochasticDepth", "PatchDropout")


def fuse(model: nn.Module, *, image_size: int = 224, in_channels: int = 3) -> nn.Module:
    """Return a copy of a network in its deploy form, in evaluation mode.

    Parallel branches are merged by the network's own methods (`reparameterize`, `fuse` or
    `switch_to_deploy` without arguments), batch norms are folded into the convolution or linear
    layer that alone feeds them, and dropout and heads that only training uses are gone. The network
    itself is not changed. It is run once on an image of this size, without data where it allows it.
    Raises UsageError if it cannot take the image, or if a method of the network fails.
    """
    fused = copy.deepcopy(getattr(model, "_orig_mod", model)).eval()
    image = (in_channels, image_size, image_size)
    with torch.no_grad():
        with _new_layers_of(fused):
            _merge_branches(fused)
        record = recorded(fused, image)
        for pair in record.pairs():
            _fold(fused, pair)
    for name, module in list(fused.named_modules()):
        if name in record.called and _is_dropout(module):
            _replace(fused, name, nn.Identity())
    _remove_unused(fused, record, image)
    return fused


class Difference(NamedTuple):
    """How far two networks' outputs are apart on the same images."""

    largest: float  # of the absolute differences
    scale: float  # the largest absolute output

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest output."""
        return self.largest / self.scale if self.scale else self.largest


def difference(model: nn.Module, fused: nn.Module, images: Tensor) -> Difference:
    """Compare two networks' outputs on a batch of images, in evaluation mode."""
    with torch.inference_mode():
        ours, theirs = (network.eval()(images) for network in (model, fused))
    return Difference(float((ours - theirs).abs().max()), float(ours.abs().max()))


def set_statistics(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of the network's batch norms to those of a batch of images.

    A network with random weights has means of 0 and variances of 1, with which a norm that is
    folded wrongly would not show. Leaves the network in evaluation mode.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    model.eval()


@contextlib.contextmanager
def _new_layers_of(model: nn.Module) -> Iterator[None]:
    """Inside the `with` block, new layers get the network's precision.

    Methods that merge branches build layers without saying which.
    """
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    before = torch.get_default_dtype()
    torch.set_default_dtype(next(floats, before))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _merge_branches(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        hook = next((h for h in HOOKS if callable(getattr(child, h, None))), None)
        if hook is not None:
            try:
                merged = getattr(child, hook)()
            except Exception as error:
                reason = (str(error).splitlines() or [""])[0][:150]
                raise UsageError(
                    f"{type(child).__name__}.{hook}() failed: {type(error).__name__}: {reason}"
                ) from error
            if isinstance(
                merged, nn.Module
            ):  # some return the merged layer, some change themselves
                setattr(parent, name, merged)
        _merge_branches(parent.get_submodule(name))


def _fold(model: nn.Module, pair: Pair) -> None:
    """Fold a norm into the layer that feeds it, if both are of kinds that are known to allow it."""
    name, _, attribute = pair.weight.rpartition(".")
    layer, norm = model.get_submodule(name), model.get_submodule(pair.norm)
    rest = _without_norm(norm)
    # layers of other kinds might not pass on a bias that they did not have
    is_known = attribute == "weight" and (
        isinstance(layer, _ConvNd | nn.Linear) or type(layer).__name__ == "DeformConv2d"
    )
    if rest is None or not is_known or layer._forward_hooks or norm._forward_hooks:
        return
    layer.weight, layer.bias = _folded(layer, norm)
    _replace(model, pair.norm, rest)


def _without_norm(norm: Any) -> nn.Module | None:
    """Return what is left of a norm without its norm, or None for a class that is not known."""
    if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
        return nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d":  # timm's norm with its activation
        return nn.Sequential(norm.drop, norm.act)
    return None


def _folded(layer: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the layer's weight and bias with the norm in them; computed in float64."""
    statistics = [t.double() for t in (norm.running_mean, norm.running_var)]
    affine = [t if t is None else t.detach().double() for t in (norm.weight, norm.bias)]
    weight = layer.weight.detach().double()
    bias = None if layer.bias is None else layer.bias.detach().double()
    fold: Callable[..., tuple[Tensor, Tensor]] = fuse_conv_bn_weights
    if isinstance(layer, nn.Linear):
        fold = fuse_linear_bn_weights
    if isinstance(layer, _ConvTransposeNd):
        # (in, out / groups, ...): the library folds one group, whose outputs are in dimension 1
        groups = layer.groups
        parts = zip(
            weight.chunk(groups),
            [None] * groups if bias is None else bias.chunk(groups),
            *([None] * groups if t is None else t.chunk(groups) for t in (*statistics, *affine)),
            strict=True,
        )
        folded = [fold(w, b, m, v, norm.eps, g, s, transpose=True) for w, b, m, v, g, s in parts]
        new = [torch.cat([part[i] for part in folded]) for i in (0, 1)]
    else:
        new = list(fold(weight, bias, *statistics, norm.eps, *affine))
    dtype, needs_grad = layer.weight.dtype, layer.weight.requires_grad
    fused_weight, fused_bias = (nn.Parameter(t.detach().to(dtype), needs_grad) for t in new)
    return fused_weight, fused_bias


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) or type(module).__name__ in DROPOUTS


def _remove_unused(model: nn.Module, record: Record, image: tuple[int, int, int]) -> None:
    """Remove layers that the forward pass neither calls nor takes parameters from.

    They are heads and branches of training. Should the network still ask for one of them (for an
    attribute, say), all of them stay.
    """
    used = record.called | {name.rpartition(".")[0] for name in record.parameters_read}
    used |= {name[:at] for name in used for at, letter in enumerate(name) if letter == "."}
    removed: dict[str, nn.Module] = {}
    for name, module in list(model.named_modules()):
        parent = name.rpartition(".")[0]
        inside = any(name.startswith(f"{other}.") for other in removed)
        if name and name not in used and not inside and any(True for _ in module.parameters()):
            if isinstance(module, nn.Identity) or parent not in used | {""}:
                continue
            removed[name] = module
    for name in removed:
        _replace(model, name, nn.Identity())
    try:
        if removed:
            recorded(model, image)
    except UsageError:
        for name, module in removed.items():
            _replace(model, name, module)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)
