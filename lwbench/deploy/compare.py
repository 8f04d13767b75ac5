"""A network's deploy form beside the network: what it costs, and how far its outputs are apart."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..measure.complexity import count
from ..measure.data_free import built
from .fuse import difference, fuse, set_statistics

IMAGES = 16  # that the outputs are compared on


def deploy_form(
    build: Callable[[], nn.Module], image_size: int, images: Tensor | None = None, source: str = ""
) -> dict[str, Any]:
    """Return counts of the deploy form, and the difference of its outputs, as plain data.

    The network that `build` returns has random weights; its batch norms get the statistics of
    `images`, (N, 3, image_size, image_size), or of generated ones. `source` says where images come
    from. Raises UsageError if the network cannot be built, merged, or run on them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if images is None:
            images, source = torch.randn(IMAGES, 3, image_size, image_size), "generated"
        model = built(build)
        try:
            set_statistics(model, images)
            form = fuse(model, image_size=image_size)
            apart = difference(model, form, images)
        except UsageError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise UsageError(f"no deploy form: {type(error).__name__}: {reason}") from error
    cost = count(form, image_size=image_size)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "peak_bytes": cost.peak_bytes,
        "largest_difference": apart.largest,
        "largest_output": apart.scale,
        "images": len(images),
        "images_from": source,
    }
