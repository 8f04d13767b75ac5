"""One layer as a network, for `lwbench bench`: a stem of 3 -> 16 channels, 3 x 3, stride 2.

    lwbench bench model=file model.path=scripts/stems.py model.function=stem \
        model.stem=conv,dc,ldc runtime=eager,compile,onnx

`scripts/stem_latency.sh` prints the whole comparison of docs/deployment.md.
"""

import torch
from torch import nn

from lwbench.layers.deform import DeformConv2d, stem_conv


def stem(num_classes: int, *, stem: str = "conv") -> nn.Module:
    """A plain or deformable stem; without classes, which no single layer has.

    A new deformable layer samples at the undeformed places. Its offsets are set to about a pixel,
    as in a trained one, since reading scattered places takes longer.
    """
    layer = stem_conv(3, 16, stem=stem)
    if isinstance(layer, DeformConv2d):
        generator = torch.Generator().manual_seed(0)
        for parameter in layer.offset_parameters():
            if parameter.ndim == 4:
                fan_in = parameter[0].numel()
                torch.nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    return layer
