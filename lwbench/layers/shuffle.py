"""Channel shuffle (Zhang et al., ShuffleNet, CVPR 2018): the wire between grouped convolutions."""

from torch import Tensor, nn


class ChannelShuffle(nn.Module):
    """Deal the channels of `groups` equal groups out in turn; (N, C, H, W) -> the same shape.

    Channel j of group i goes to place j * groups + i, so that each group of a following grouped
    convolution sees channels of every group before it. One group is the identity. C must be a
    multiple of `groups`. Costs no multiplication.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
