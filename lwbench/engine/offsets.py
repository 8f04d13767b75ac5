"""What deformable layers have learned: their offsets and masks on a few images."""

import logging
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from .precision import Autocast

log = logging.getLogger("lwbench")


@runtime_checkable
class Deformable(Protocol):
    """A layer with learned sampling points, such as `layers.deform.DeformConv2d`.

    The engine does not import the layers: any module that has these methods is one.
    """

    def offset_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the branches that predict offsets and masks."""

    def offsets_and_masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (N, 2 K K, OH, OW) in pixels and masks (N, K K, OH, OW) for input `x`."""


def is_deformable(model: nn.Module) -> bool:
    """Return whether the network has a deformable layer."""
    return any(_is_deformable(module) for module in model.modules())


def _is_deformable(module: nn.Module) -> bool:
    # a function of its own: after isinstance, mypy takes the module for nothing but the protocol
    return isinstance(module, Deformable)


@torch.no_grad()
def sampled_offsets(
    model: nn.Module, images: Tensor, autocast: Autocast
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return offsets and masks of each deformable layer on `images`, as float32, by layer name.

    Shapes as in `Deformable`. Leaves the model in eval mode.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(module, Deformable)
        offset, mask = module.offsets_and_masks(*inputs)
        # bf16 has too few digits for statistics, and NumPy does not know it
        found[name] = offset.float(), mask.float()

    # hooks see each layer's own input without a second implementation of the network
    hooks = [
        module.register_forward_pre_hook(partial(record, name))
        for name, module in model.named_modules()
        if _is_deformable(module)
    ]
    # batch norms of the branches as in an evaluation, and none of their statistics changed
    model.eval()
    try:
        with autocast():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def offset_statistics(model: nn.Module, images: Tensor, autocast: Autocast) -> tuple[float, float]:
    """Return mean and largest |offset| in pixels over all deformable layers."""
    found = sampled_offsets(model, images, autocast)
    offsets = torch.cat([offset.abs().flatten() for offset, _ in found.values()])
    return offsets.mean().item(), offsets.max().item()


def warn_if_lost(mean: float, before: float, side: int) -> None:
    """Warn when offsets, on average, first exceed a quarter of the image's side.

    `mean`, `before`: mean |offset| after this epoch and the last one; `side`: in pixels, as these.
    Samples outside the image are zero with gradient zero, so such offsets seldom return.
    """
    if mean > side / 4 >= before:
        log.warning(
            "offsets are %.0f px on average in images of %d px, so that many samples lie outside: "
            "training has probably gone wrong; lower optimizer.offset_lr_factor (0.1 is stable)",
            mean,
            side,
        )


def offset_arrays(model: nn.Module, images: Tensor, autocast: Autocast) -> dict[str, np.ndarray]:
    """Return what offsets.npz holds: `images`, `<layer>.offset` and `<layer>.mask`.

    Images as the network gets them, normalised; layers as in `sampled_offsets`.
    """
    arrays = {"images": images.float().cpu().numpy()}
    for name, (offset, mask) in sampled_offsets(model, images, autocast).items():
        arrays |= {f"{name}.offset": offset.cpu().numpy(), f"{name}.mask": mask.cpu().numpy()}
    return arrays
