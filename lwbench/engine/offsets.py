"""What deformable layers have learned: their offsets and masks on a few images."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def deformable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can say their offsets and masks (`layers.deform.DeformConv2d`), by name."""
    return {n: m for n, m in model.named_modules() if hasattr(m, "offsets_and_masks")}


@torch.no_grad()
def sample_offsets(
    model: nn.Module, images: Tensor, autocast: Callable[[], Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each deformable layer's offsets in pixels and masks, (N, 2 K K, H, W) and (N, K K, H, W).

    Leaves the model in eval mode.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str, module: nn.Module, arguments: tuple[Tensor]) -> None:
        seen[name] = module.offsets_and_masks(*arguments)

    hooks = [
        module.register_forward_pre_hook(partial(look, name))
        for name, module in deformable_layers(model).items()
    ]
    model.eval()
    try:
        with autocast():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (offset.float(), mask.float()) for name, (offset, mask) in seen.items()}
