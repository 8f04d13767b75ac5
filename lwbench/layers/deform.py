"""Deformable convolution layers: with ordinary (DC) and with low-cost (LDC) offset branches.

The operator is `deform_operator.deform_conv2d`. DC predicts its offsets and masks with ordinary
K x K convolutions, LDC (ldc section 3.1, eq. 7) with depthwise separable ones.
"""

from typing import Literal

from torch import Tensor, nn

from .deform_operator import deform_conv2d

Branch = Literal["dc", "ldc"]
Offsets = Literal["separate", "shared"]


class DeformConv2d(nn.Module):
    """Modulated deformable convolution layer, (N, I, H, W) -> (N, O, OH, OW), in place of a K x K
    convolution.

    `branch="dc"`: offsets and masks from ordinary K x K convolutions, 3 N H W I K^2 MACs more (ldc
    eq. 6); `branch="ldc"`: from depthwise separable ones, H W I K^2 + 3 N H W I more (eq. 7). For
    "ldc" the counts of ldc table 4 fit two readings alike: `offsets="separate"`, a biased depthwise
    and pointwise pair each for offsets and masks; `offsets="shared"`, one depthwise for both, each
    half with batch norm and without bias.

    Offsets start at zero and masks at one half everywhere, so that the layer starts as the plain
    convolution up to a factor that the batch norm after it absorbs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        branch: Branch = "dc",
        offsets: Offsets = "separate",
    ) -> None:
        super().__init__()
        # None keeps the map's size at stride 1, as for the convolutions that this layer replaces
        self.stride, self.dilation = stride, dilation
        self.padding = dilation * (kernel - 1) // 2 if padding is None else padding
        self.points = kernel * kernel
        # holds the weight under the name that a plain convolution's checkpoint would use; it is
        # never called
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, self.padding, dilation, groups, bias=False
        )
        # the branches see the same windows, so that each output position gets its own offsets
        geometry = (kernel, stride, self.padding, dilation)

        def plain(channels: int) -> nn.Module:
            return nn.Conv2d(in_channels, channels, *geometry)

        def separable(channels: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(in_channels, in_channels, *geometry, groups=in_channels),
                nn.Conv2d(in_channels, channels, 1),
            )

        if branch == "ldc" and offsets == "shared":
            # one depthwise convolution for offsets and masks, which are split in `forward`
            self.offset_mask = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, *geometry, groups=in_channels, bias=False),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, 3 * self.points, 1, bias=False),
                nn.BatchNorm2d(3 * self.points),
            )
        else:
            convolution = plain if branch == "dc" else separable
            self.offset = convolution(2 * self.points)
            self.mask = convolution(self.points)
        self.reset_offsets()

    def branches(self) -> list[nn.Module]:
        """Return the networks that predict offsets and masks."""
        return [getattr(self, n) for n in ("offset_mask", "offset", "mask") if hasattr(self, n)]

    def set_stride(self, stride: int) -> None:
        """Change the stride of the layer and of its branches, which see the same windows."""
        self.stride = stride
        firsts = [
            branch[0] if isinstance(branch, nn.Sequential) else branch for branch in self.branches()
        ]
        for conv in [self.conv, *firsts]:
            assert isinstance(conv, nn.Conv2d)
            conv.stride = (stride, stride)

    def offset_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the branches, which may have a learning rate of their own."""
        return [parameter for branch in self.branches() for parameter in branch.parameters()]

    def reset_offsets(self) -> None:
        """Initialise the branches so that offsets are zero and masks one half.

        Only the last module of a branch is zeroed: with two zeroed modules in a row neither would
        receive a gradient. Where the last convolution feeds a batch norm ("shared"), the norm's
        scale is zeroed in its place: behind a zeroed convolution the norm would multiply the first
        step's gradient by 1 / sqrt(eps).
        """
        for branch in self.branches():
            last = branch[-1] if isinstance(branch, nn.Sequential) else branch
            assert isinstance(last, nn.Conv2d | nn.BatchNorm2d) and last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def offsets_and_masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets in pixels (N, 2 K K, OH, OW), all finite, and masks (N, K K, OH, OW)."""
        if hasattr(self, "offset_mask"):
            offset, mask = self.offset_mask(x).split([2 * self.points, self.points], 1)
        else:
            offset, mask = self.offset(x), self.mask(x)
        # a diverged branch must not crash the run before the loss is seen to be NaN
        return offset.nan_to_num(0.0, 0.0, 0.0), mask.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        # the weight is used without calling `conv`, whose own windows are not deformed
        offset, mask = self.offsets_and_masks(x)
        y = deform_conv2d(
            x,
            offset,
            mask,
            self.conv.weight,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        bias = self.conv.bias  # of a folded batch norm only (deploy.fuse)
        return y if bias is None else y + bias[:, None, None]


Stem = Literal["conv", "dc", "ldc"]


def stem_conv(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 2,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    bias: bool = False,
) -> nn.Module:
    """Return a network's first convolution, plain or deformable, with the same output shape.

    A deformable one has no bias: the paper replaces convolutions that a batch norm follows (ldc,
    section 3.1).
    """
    if stem == "conv":
        return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)
    return DeformConv2d(
        in_channels, out_channels, kernel, stride=stride, branch=stem, offsets=offsets
    )
