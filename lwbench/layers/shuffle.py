"""Channel shuffle (Zhang et al., ShuffleNet, CVPR 2018) between grouped convolutions."""

from torch import Tensor


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal groups; (N, C, H, W) -> the same shape.

    Channel j of group i moves to position j * groups + i, so that each group of a following grouped
    convolution sees channels of every group before it. One group is the identity. C must be a
    multiple of `groups`. Needs no multiplications.
    """
    n, c, h, w = x.shape
    # a transposition of the (group, channel) axes; reshape copies, as the result is not contiguous
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
