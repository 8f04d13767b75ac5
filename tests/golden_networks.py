"""Networks whose counts by published tools are held in tests/golden/rules.json.

`scripts/golden_rules.py` runs the tools on them; test_golden_rules.py compares our rules.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class Function(nn.Module):
    """A module whose forward is a function; tools see a class that they do not know."""

    def __init__(self, function: Callable[..., Tensor], *weight: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(weight)) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.weight is None else self.function(x, self.weight)


class Rows(nn.Module):
    """(N, 3, 8, 8) -> (N, 24, 8): a sequence of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)


class Volume(nn.Module):
    """(N, 3, 8, 8) -> (N, 3, 2, 4, 8): maps with a depth."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (2, 4))


class First(nn.Module):
    """A module's first result, as layers that return tuples need it in a sequence."""

    def __init__(self, layer: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(*[x] * self.times)
        return out[0] if isinstance(out, tuple) else out


class Attention(nn.Module):
    """nn.MultiheadAttention as transformers call it: the fused function computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, need_weights=False)[0]


class OwnConv(nn.Conv2d):
    """A subclass, which tools that compare classes exactly do not know."""


class Parent(nn.Module):
    """Calls a layer that it may share with others."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Deformed(nn.Module):
    """torchvision's deformable layer with offsets of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(3, 18, 3, padding=1)
        self.conv = DeformConv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offset(x))


def flat(*layers: nn.Module) -> list[nn.Module]:
    return [nn.Flatten(), *layers]  # (N, 192)


def line(*layers: nn.Module) -> list[nn.Module]:
    return [nn.Flatten(2), *layers]  # (N, 3, 64)


def rows(*layers: nn.Module) -> list[nn.Module]:
    return [Rows(), *layers]  # (N, 24, 8)


def volume(*layers: nn.Module) -> list[nn.Module]:
    return [Volume(), *layers]  # (N, 3, 2, 4, 8)


def shared(layer: nn.Module) -> list[nn.Module]:
    return [Parent(layer), nn.Tanh(), Parent(layer)]


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def encoders(layers: int) -> nn.Module:
    return nn.TransformerEncoder(encoder(), layers, enable_nested_tensor=False)


# fmt: off
LAYERS: dict[str, Callable[[], list[nn.Module]]] = {  # on a 3 x 8 x 8 image
    "Conv2d": lambda: [nn.Conv2d(3, 4, 3, padding=1)],
    "Conv2d without bias": lambda: [nn.Conv2d(3, 4, 3, bias=False)],
    "Conv2d, groups, stride, dilation": lambda: [nn.Conv2d(3, 6, 3, 2, 2, 2, 3)],
    "Conv2d, 3 x 1 kernel": lambda: [nn.Conv2d(3, 5, (3, 1))],
    "Conv2d, padding by name": lambda: [nn.Conv2d(3, 4, 3, padding="same")],
    "Conv1d": lambda: line(nn.Conv1d(3, 4, 3)),
    "Conv1d without bias": lambda: line(nn.Conv1d(3, 6, 3, groups=3, bias=False)),
    "Conv3d": lambda: volume(nn.Conv3d(3, 4, (1, 3, 3))),
    "ConvTranspose1d": lambda: line(nn.ConvTranspose1d(3, 4, 3, 2)),
    "ConvTranspose2d": lambda: [nn.ConvTranspose2d(3, 4, 2, 2)],
    "ConvTranspose2d, groups, no bias": lambda: [nn.ConvTranspose2d(3, 6, 3, groups=3, bias=False)],
    "ConvTranspose2d, groups, stride": lambda: [nn.ConvTranspose2d(3, 6, 3, 2, 1, 1, groups=3)],
    "ConvTranspose3d": lambda: volume(nn.ConvTranspose3d(3, 4, 2)),
    "a subclass of Conv2d": lambda: [OwnConv(3, 4, 3)],
    "F.conv2d": lambda: [Function(F.conv2d, 4, 3, 3, 3)],
    "torchvision's DeformConv2d": lambda: [Deformed()],
    "Linear": lambda: flat(nn.Linear(192, 5)),
    "Linear without bias": lambda: flat(nn.Linear(192, 5, bias=False)),
    "Linear on tokens": lambda: rows(nn.Linear(8, 5)),
    "Linear on tokens without bias": lambda: rows(nn.Linear(8, 5, bias=False)),
    "Linear on maps": lambda: [nn.Linear(8, 5)],
    "F.linear": lambda: [Function(F.linear, 5, 8)],
    "matrix product": lambda: [Function(lambda x: x @ x.mT)],
    "fused attention": lambda: [Function(lambda x: F.scaled_dot_product_attention(x, x, x))],
    "batched matrix product with an addend":
        lambda: rows(Function(lambda x: torch.baddbmm(x @ x.mT, x, x.mT))),
    "matrix by vector": lambda: rows(Function(lambda x: x[0] @ x[0, 0])),
    "einsum": lambda: rows(Function(lambda x: torch.einsum("b i j, b k j -> b i k", x, x))),
    "einsum of three": lambda: rows(
        Function(lambda x: torch.einsum("bij,bkj,bkl->bil", x, x, x[..., :3]))),
    "Bilinear": lambda: rows(First(nn.Bilinear(8, 8, 5), 2)),
    "grid_sample": lambda: [Function(lambda x: F.grid_sample(
        x, x[:, :2].permute(0, 2, 3, 1), align_corners=False))],
    "F.interpolate": lambda: [Function(lambda x: F.interpolate(x, size=5, mode="bilinear"))],
    "attention without its weights": lambda: rows(Attention()),
    "MultiheadAttention": lambda: rows(First(nn.MultiheadAttention(8, 2, batch_first=True), 3)),
    "TransformerEncoderLayer": lambda: rows(encoder()),
    "TransformerEncoder": lambda: rows(encoders(2)),
    "BatchNorm1d": lambda: flat(nn.BatchNorm1d(192)),
    "BatchNorm1d on a line": lambda: line(nn.BatchNorm1d(3)),
    "BatchNorm2d": lambda: [nn.BatchNorm2d(3)],
    "BatchNorm2d without weights": lambda: [nn.BatchNorm2d(3, affine=False)],
    "BatchNorm3d": lambda: volume(nn.BatchNorm3d(3)),
    "SyncBatchNorm": lambda: [nn.SyncBatchNorm(3)],
    "LayerNorm": lambda: rows(nn.LayerNorm(8)),
    "LayerNorm without weights": lambda: rows(nn.LayerNorm(8, elementwise_affine=False)),
    "GroupNorm": lambda: [nn.GroupNorm(3, 3)],
    "InstanceNorm1d": lambda: line(nn.InstanceNorm1d(3, affine=True)),
    "InstanceNorm2d": lambda: [nn.InstanceNorm2d(3)],
    "InstanceNorm3d": lambda: volume(nn.InstanceNorm3d(3, affine=True)),
    "LocalResponseNorm": lambda: [nn.LocalResponseNorm(2)],
    **{f"{cls.__name__}": (lambda cls=cls: [cls()]) for cls in (
        nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
        nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus,
        nn.Identity, nn.Dropout, nn.Dropout2d)},
    "ReLU in place after Conv2d": lambda: [nn.Conv2d(3, 4, 1), nn.ReLU(True)],
    "ReLU on tokens": lambda: rows(nn.ReLU()),
    "Softmax": lambda: rows(nn.Softmax(-1)),
    "LogSoftmax": lambda: flat(nn.LogSoftmax(-1)),
    "GLU": lambda: rows(nn.GLU(-1)),
    "MaxPool1d": lambda: line(nn.MaxPool1d(2)),
    "MaxPool2d": lambda: [nn.MaxPool2d(3, 2, 1)],
    "MaxPool3d": lambda: volume(nn.MaxPool3d(2)),
    "AvgPool1d": lambda: line(nn.AvgPool1d(2)),
    "AvgPool2d": lambda: [nn.AvgPool2d(3, 2, 1)],
    "AvgPool3d": lambda: volume(nn.AvgPool3d(2)),
    "LPPool2d": lambda: [nn.LPPool2d(2, 2)],
    "AdaptiveMaxPool1d": lambda: line(nn.AdaptiveMaxPool1d(5)),
    "AdaptiveMaxPool2d": lambda: [nn.AdaptiveMaxPool2d(2)],
    "AdaptiveMaxPool3d": lambda: volume(nn.AdaptiveMaxPool3d(2)),
    "AdaptiveAvgPool1d": lambda: line(nn.AdaptiveAvgPool1d(5)),
    "AdaptiveAvgPool2d": lambda: [nn.AdaptiveAvgPool2d(1)],
    "AdaptiveAvgPool2d to 3 x 5": lambda: [nn.AdaptiveAvgPool2d((3, 5))],
    "AdaptiveAvgPool2d to more than it gets": lambda: [nn.AdaptiveAvgPool2d(9)],
    "AdaptiveAvgPool2d to the input's height": lambda: [nn.AdaptiveAvgPool2d((None, 2))],
    "AdaptiveAvgPool3d": lambda: volume(nn.AdaptiveAvgPool3d((1, 2, 2))),
    "Upsample, nearest": lambda: [nn.Upsample(scale_factor=2)],
    "Upsample, nearest-exact": lambda: [nn.Upsample(scale_factor=2, mode="nearest-exact")],
    "Upsample, linear": lambda: line(nn.Upsample(scale_factor=2, mode="linear")),
    "Upsample, bilinear": lambda: [nn.Upsample(scale_factor=2, mode="bilinear")],
    "Upsample, bicubic": lambda: [nn.Upsample(scale_factor=2, mode="bicubic")],
    "Upsample, trilinear": lambda: volume(nn.Upsample(scale_factor=2, mode="trilinear")),
    "UpsamplingBilinear2d": lambda: [nn.UpsamplingBilinear2d(scale_factor=2)],
    "UpsamplingNearest2d": lambda: [nn.UpsamplingNearest2d(scale_factor=2)],
    "ZeroPad2d": lambda: [nn.ZeroPad2d(1)],
    "ReflectionPad2d": lambda: [nn.ReflectionPad2d(1)],
    "PixelShuffle": lambda: [nn.Conv2d(3, 4, 1), nn.PixelShuffle(2)],
    "ChannelShuffle": lambda: [nn.ChannelShuffle(3)],
    "RNN": lambda: rows(First(nn.RNN(8, 6, batch_first=True))),
    "RNN, three layers without bias": lambda: rows(First(nn.RNN(8, 6, 3, bias=False))),
    "GRU": lambda: rows(First(nn.GRU(8, 6))),
    "GRU, two layers both ways": lambda: rows(First(nn.GRU(8, 6, 2, bidirectional=True))),
    "LSTM": lambda: rows(First(nn.LSTM(8, 6, batch_first=True))),
    "LSTM, two layers both ways": lambda: rows(First(nn.LSTM(8, 6, 2, bidirectional=True))),
    "LSTM without bias": lambda: rows(First(nn.LSTM(8, 6, bias=False, batch_first=True))),
    "RNNCell": lambda: flat(nn.RNNCell(192, 6)),
    "GRUCell": lambda: flat(nn.GRUCell(192, 6)),
    "LSTMCell": lambda: flat(First(nn.LSTMCell(192, 6))),
    "GRUCell without bias": lambda: flat(nn.GRUCell(192, 6, bias=False)),
    "ReLU called twice": lambda: [relu := nn.ReLU(), nn.Conv2d(3, 5, 1), relu],
    "Conv2d called twice": lambda: [conv := nn.Conv2d(3, 3, 1), nn.ReLU(), conv],
    "Conv2d shared by two parents": lambda: shared(nn.Conv2d(3, 3, 1)),
    "BatchNorm2d shared by two parents": lambda: shared(nn.BatchNorm2d(3)),
}
# fmt: on
TORCHVISION = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "densenet121",
    "googlenet",
    "efficientnet_b0",
    "regnet_y_400mf",
    "vgg11_bn",
    "vit_b_32",
    "swin_t",
    "convnext_tiny",
)  # fmt: skip
OURS = ("mobilenet_ldc", "ghostnet", "hsnet", "mobilenetv1", "shufflenetv1", "cifar_resnet")


def image_size(name: str) -> int:
    """Side of the square image of three channels that a case is counted on."""
    if name in LAYERS:
        return 8
    return 32 if name == "cifar_resnet" else 224


def build(name: str) -> nn.Module:
    """The network of a case, in evaluation mode, from a fixed seed."""
    torch.manual_seed(0)
    if name in LAYERS:
        return nn.Sequential(*LAYERS[name]()).eval()
    if name in TORCHVISION:
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return torchvision.models.get_model(name, weights=None, **options).eval()
    from lwbench.registry import MODELS

    return MODELS.build({"builder": name}, 1000).eval()
