"""Channel shuffle (Zhang et al., ShuffleNet, CVPR 2018): the wire between grouped convolutions."""

from torch import Tensor


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of `groups` equal groups out in turn; (N, C, H, W) -> the same shape.

    Channel j of group i goes to place j * groups + i, so that each group of a following grouped
    convolution sees channels of every group before it. One group is the identity. C must be a
    multiple of `groups`. Costs no multiplication.
    """
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
