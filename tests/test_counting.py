"""Counts of every kind of operator, each against a count by hand and torch's FlopCounterMode."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from golden_networks import Function
from torch import Tensor, nn

from lwbench.layers.depthwise import accelerate
from lwbench.measure.complexity import count
from lwbench.measure.counters import flop_counter_macs

N, D = 24, 8  # tokens and their width, of a 3 x 8 x 8 image
LINEAR, ATTENTION = N * D * D, 2 * N * N * D  # a projection; both products of attention


class Tokens(nn.Module):
    """Gives a layer the image as (1, 24, 8) tokens, `times` times, and returns its first result."""

    def __init__(self, layer: nn.Module, times: int = 1, **options: object) -> None:
        super().__init__()
        self.layer, self.times, self.options = layer, times, options

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(*[x.flatten(1, 2)] * self.times, **self.options)
        return out[0] if isinstance(out, tuple) else out


class Loose(nn.Module):
    """Uses a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.zeros(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.mixing


class Words(nn.Module):
    """Looks up the brightness of each pixel."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).to(torch.long)[0])


def tokens(function) -> nn.Module:
    return Function(lambda x: function(x.flatten(1, 2)))


def attention(**options: object) -> nn.Module:
    return nn.MultiheadAttention(D, 2, batch_first=True, **options)


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(D, 2, 16, batch_first=True)


def called_twice() -> nn.Module:
    conv = nn.Conv2d(3, 3, 1)
    return nn.Sequential(conv, nn.ReLU(), conv)


# fmt: off
BY_HAND = {  # network on a 3 x 8 x 8 image: MACs by hand, parameters, MACs by FlopCounterMode
    "conv": (lambda: nn.Conv2d(3, 4, 3), 36 * 4 * 27, 112),
    "grouped conv": (lambda: nn.Conv2d(3, 6, 3, padding=1, groups=3), 64 * 6 * 9, 60),
    "depthwise conv, dilated": (lambda: nn.Conv2d(3, 3, 3, dilation=2, groups=3), 16 * 3 * 9, 30),
    "conv, padding by name": (lambda: nn.Conv2d(3, 4, 3, padding="same"), 64 * 4 * 27, 112),
    # every input pixel is multiplied with a kernel of 3 x 4 x 2 x 2
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 4, 2, 2), 64 * 48, 52),
    "transposed conv in groups": (lambda: nn.ConvTranspose2d(3, 6, 3, 2, groups=3), 64 * 54, 60),
    "convolution as a function": (lambda: Function(F.conv2d, 4, 3, 3, 3), 36 * 4 * 27, 108),
    "linear": (lambda: nn.Linear(8, 5), 24 * 40, 45),
    "linear as a function": (lambda: Function(F.linear, 5, 8), 24 * 40, 40),
    "a parameter without a module": (Loose, 24 * 40, 40),
    "a module called twice": (called_twice, 2 * 64 * 9, 12),
    "@": (lambda: tokens(lambda x: x @ x.mT), N * N * D, 0),
    "@ by a matrix without a batch": (lambda: tokens(lambda x: x @ x[0].mT), N * N * D, 0),
    # FlopCounterMode has no formula for products of vectors
    "matrix by vector": (lambda: tokens(lambda x: x[0] @ x[0, 0]), N * D, 0, 0),
    "inner product": (lambda: tokens(lambda x: torch.dot(x[0, 0], x[0, 1])), D, 0, 0),
    "bmm": (lambda: tokens(lambda x: torch.bmm(x, x.mT)), N * N * D, 0),
    "baddbmm": (lambda: tokens(lambda x: torch.baddbmm(x @ x.mT, x, x.mT)), 2 * N * N * D, 0),
    # FlopCounterMode has no formula for these
    "addbmm": (lambda: tokens(lambda x: torch.addbmm(x[0] @ x[0].mT, x, x.mT)), 2 * N * N * D, 0,
               N * N * D),
    "addmv": (lambda: tokens(lambda x: torch.addmv(x[0, :, 0], x[0], x[0, 0])), N * D, 0, 0),
    "einsum": (lambda: tokens(lambda x: torch.einsum("bij,bkj->bik", x, x)), N * N * D, 0),
    # from left to right: (24 x 8) by (8 x 24), then by (24 x 3)
    "einsum of three": (
        lambda: tokens(lambda x: torch.einsum("bij,bkj,bkl->bil", x, x, x[..., :3])),
        N * N * D + N * N * 3, 0),
    "tensordot": (lambda: tokens(lambda x: torch.tensordot(x, x, ([2], [2]))), N * N * D, 0),
    # each of 24 rows: 5 matrices of 8 x 8 by a vector, and the 5 results by the other vector
    "bilinear": (lambda: Tokens(nn.Bilinear(8, 8, 5), 2), 24 * 5 * (64 + 8), 325, 0),
    "attention as a function": (
        lambda: tokens(lambda x: F.scaled_dot_product_attention(x, x, x)), ATTENTION, 0),
    "attention with a mask": (
        lambda: tokens(lambda x: F.scaled_dot_product_attention(x, x, x, x @ x.mT)),
        ATTENTION + N * N * D, 0),
    "causal attention": (
        lambda: tokens(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
        ATTENTION, 0),
    "MultiheadAttention": (lambda: Tokens(attention(), 3), 4 * LINEAR + ATTENTION, 288),
    "MultiheadAttention without its weights": (
        lambda: Tokens(attention(), 3, need_weights=False), 4 * LINEAR + ATTENTION, 288),
    "MultiheadAttention, other keys": (
        lambda: Tokens(attention(kdim=8, vdim=8, bias=False), 3), 4 * LINEAR + ATTENTION, 256),
    "TransformerEncoderLayer": (
        lambda: Tokens(encoder()), 4 * LINEAR + ATTENTION + 2 * N * D * 16, 600),
    # each step: 4 or 3 gates, each with the input and the state; (8, 6)-networks on 24 steps
    "LSTM": (lambda: Tokens(nn.LSTM(8, 6, batch_first=True)), 24 * 4 * 6 * (8 + 6), 384),
    "LSTM, two layers both ways": (
        lambda: Tokens(nn.LSTM(8, 6, 2, bidirectional=True)),
        24 * 2 * 4 * 6 * (8 + 6 + 12 + 6), 2 * 384 + 2 * 480),
    "GRU": (lambda: Tokens(nn.GRU(8, 6, batch_first=True)), 24 * 3 * 6 * (8 + 6), 288),
    "RNN": (lambda: Tokens(nn.RNN(8, 6, batch_first=True)), 24 * 6 * (8 + 6), 96),
    # activations, resizing and look-ups multiply nothing that a MAC is
    "PReLU": (lambda: nn.PReLU(3), 0, 3),
    **{f"interpolation, {mode}": (
        lambda mode=mode: Function(lambda x: F.interpolate(x, scale_factor=2, mode=mode)), 0, 0)
       for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")},
    "grid_sample": (lambda: Function(lambda x: F.grid_sample(
        x, x[:, :2].permute(0, 2, 3, 1), align_corners=False)), 0, 0),
    "Embedding": (lambda: Words(nn.Embedding(9, 4)), 0, 36),
    "EmbeddingBag": (lambda: Words(nn.EmbeddingBag(9, 4)), 0, 36),
}
# fmt: on


@pytest.mark.parametrize("name", BY_HAND)
def test_an_operator_counts_what_a_count_by_hand_gives(name):
    build, macs, params, *other = BY_HAND[name]
    cost = count(build(), image_size=8)
    assert (cost.macs["plain"], cost.params) == (macs, params)
    assert not cost.unknown
    assert flop_counter_macs(build(), 8) == (other[0] if other else macs)


def test_frozen_attention_in_evaluation_mode_counts_its_parts():
    """Without gradients PyTorch runs one fused operator for the whole layer."""
    frozen = Tokens(encoder().eval().requires_grad_(False))
    cost = count(frozen, image_size=8)
    assert cost.macs["plain"] == 4 * LINEAR + ATTENTION + 2 * N * D * 16
    assert not cost.unknown
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_network_that_needs_data_counts_the_same_on_the_cpu():
    """There, fused operators take the place of those that are seen without data."""

    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = Tokens(nn.LSTM(8, 8, 2, batch_first=True))
            self.attention = Tokens(attention(), 3, need_weights=False)

        def forward(self, x: Tensor) -> Tensor:
            x = x + float(x.sum())  # reads a value back
            return self.attention(self.lstm(x)[:, None].reshape(1, 3, 8, 8))

    cost = count(Reading(), image_size=8)
    assert cost.macs["plain"] == 24 * 2 * 4 * 8 * 16 + 4 * LINEAR + ATTENTION
    assert not cost.unknown


def test_compiled_convolutions_count_as_those_they_replace():
    model = torchvision.models.mobilenet_v2()
    before = count(model, image_size=64)
    assert count(accelerate(model), image_size=64) == before
    assert before.macs["plain"] == flop_counter_macs(model, 64)
