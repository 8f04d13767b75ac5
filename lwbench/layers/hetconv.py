"""Heterogeneous convolution: kernels of two sizes in every filter."""

from torch import Tensor, nn


class HetConv(nn.Module):
    """Heterogeneous convolution (Singh et al., HetConv, CVPR 2019), https://arxiv.org/abs/1903.04120.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    In every filter one of `parts` (the paper's P) kernels is kernel x kernel, the others are 1 x 1.
    Computed as a grouped kernel x kernel convolution in `parts` groups plus a 1 x 1 convolution of
    all channels. The paper shifts the large kernels by one channel from filter to filter; here all
    filters of a group have them at the same channels, and 1 x 1 kernels exist at those channels
    too, where they add to the centres of the large ones. `pointwise`, if given, replaces the 1 x 1
    convolution (hsnet, fig. 2: a Ghost module); it must return the same shape. No bias, no norm.
    Raises ValueError where the channels are not multiples of `parts`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        parts: int = 4,
        pointwise: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if in_channels % parts or out_channels % parts:
            raise ValueError(f"{in_channels} -> {out_channels} channels: not multiples of {parts}")
        # two ordinary convolutions, whose sum is the heterogeneous one: no kernel of its own needed
        self.groupwise = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=parts, bias=False
        )
        self.pointwise = pointwise or nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # both see all positions with one stride, so that their outputs have one size
        return self.groupwise(x) + self.pointwise(x)
