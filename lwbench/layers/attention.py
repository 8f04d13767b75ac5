"""Channel attention: squeeze-and-excitation (SE) in its placements, and ECA."""

from math import log2

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018) from 1 x 1 convolutions.

    (N, C, H, W) -> the same, scaled by channel.

    Pool, C -> C / reduction, ReLU, -> C, hard sigmoid. With `norm` each convolution is followed by
    a batch norm (ldc's networks); the convolutions have no bias either way (dcnn, 5.4.1). Training
    with `norm` needs batches of two or more images.
    """

    def __init__(self, channels: int, *, reduction: int = 4, norm: bool = False) -> None:
        super().__init__()
        squeezed = channels // reduction
        # 1 x 1 convolutions rather than linear layers: most counting rules treat biases differently
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(squeezed) if norm else nn.Identity()
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        # (N, C, 1, 1) throughout; the product below broadcasts over the map
        scale = self.relu(self.reduce_norm(self.reduce(self.pool(x))))
        return x * self.gate(self.expand_norm(self.expand(scale)))


class EfficientChannelAttention(nn.Module):
    """ECA (Wang et al., ECA-Net, CVPR 2020), https://arxiv.org/abs/1910.03151.

    (N, C, H, W) -> the same, scaled by channel.

    Pool, one convolution along the channels (no bias), sigmoid. With `kernel` None the size is the
    paper's for this number of channels: log2(C) / 2 + 1 / 2, truncated, then rounded up to an odd
    number (eq. 12).
    """

    def __init__(self, channels: int, *, kernel: int | None = None) -> None:
        super().__init__()
        # `| 1` sets the lowest bit: an even size becomes the next odd one
        size = kernel or int(log2(channels) / 2 + 0.5) | 1
        # padding keeps one weight per channel, whatever the kernel's size
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        # (N, C, 1, 1) -> (N, 1, C): the channels are the axis that the convolution runs along
        scale = self.conv(self.pool(x).flatten(1).unsqueeze(1))
        # back to (N, C, 1, 1), which broadcasts over the map
        return x * self.gate(scale).view(x.shape[0], x.shape[1], 1, 1)
