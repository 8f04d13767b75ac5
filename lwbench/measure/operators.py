"""Operators of PyTorch: which are counted, by which formula, and which cost nothing.

A count is in multiply-accumulates: what a convolution or matrix product does for each output
element. An operator that is in none of the lists below is reported as unknown rather than counted
as nothing.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor


def convolution(args: tuple[Any, ...], out: Tensor) -> int:
    """aten::convolution(input, weight, bias, stride, padding, dilation, transposed, ...)."""
    x, weight, transposed = args[0], args[1], args[6]
    # a transposed convolution multiplies each *input* element with the kernel
    swept = x if transposed else out
    return swept.numel() * prod(weight.shape[1:])


def product(args: tuple[Any, ...], out: Tensor) -> int:
    """aten::mm, bmm(a, b): output elements times the inner size."""
    return out.numel() * args[0].shape[-1]


def added_product(args: tuple[Any, ...], out: Tensor) -> int:
    """aten::addmm, baddbmm(c, a, b)."""
    return out.numel() * args[1].shape[-1]


def summed_product(args: tuple[Any, ...], out: Tensor) -> int:
    """aten::addbmm(c, a, b): the batch's products, which are added up."""
    return args[1].numel() * args[2].shape[-1]


def bilinear(args: tuple[Any, ...], out: Tensor) -> int:
    """aten::_trilinear(a, weight, b, ...) as nn.Bilinear calls it: weight by b, then by a."""
    rows, weight = args[0].shape[0], args[1]
    return rows * (weight.numel() + prod(weight.shape[:-1]))


def recurrent(args: tuple[Any, ...], out: Tensor) -> int:
    """aten::mkldnn_rnn_layer(x, w_ih, w_hh, ...): both products of each step."""
    x, inputs, hidden = args[:3]
    return x.shape[0] * x.shape[1] * (inputs.numel() + hidden.numel())


def attention(args: tuple[Any, ...], out: Tensor) -> int:
    """Fused attention of q (..., L, E), k (..., S, E), v (..., S, V): both products."""
    q, k, v = args[:3]
    return prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def deformable(args: tuple[Any, ...], out: Tensor) -> int:
    """torchvision::deform_conv2d(x, weight, offset, mask, bias, ...): a convolution's count."""
    return out.numel() * prod(args[1].shape[1:])


CONVOLUTIONS: dict[str, Callable[[tuple[Any, ...], Tensor], int]] = {
    "aten.convolution": convolution,
    "torchvision.deform_conv2d": deformable,
}
PRODUCTS: dict[str, Callable[[tuple[Any, ...], Tensor], int]] = {
    "aten.mm": product,
    "aten.bmm": product,
    "aten.mv": product,
    "aten.dot": product,
    "aten.addmm": added_product,
    "aten.addmv": added_product,
    "aten.baddbmm": added_product,
    "aten.addbmm": summed_product,
    "aten._trilinear": bilinear,
    "aten.mkldnn_rnn_layer": recurrent,
    "aten._scaled_dot_product_flash_attention_for_cpu": attention,
    "aten._scaled_dot_product_fused_attention_overrideable": attention,
}


def sampling_operations(points: int, channels: int, masked: bool) -> int:
    """Return the multiply-accumulates of bilinear sampling: points * channels * (4 + masked).

    `points` = N * OH * OW * K * K positions, each in `channels` channels: four weighted corners per
    sampled value, and one product with the mask if there is one. The arithmetic of the coordinates,
    which all channels share, is left out.
    """
    return points * channels * (4 + masked)


def _names(words: str) -> frozenset[str]:
    return frozenset(f"aten.{word}" for word in words.split())


# Operators that count 0 as functions. Norms and the other arithmetic are apart since a norm inside
# a module of several layers is worth a remark where a tool does not know the module.
NORMS = _names("""
    _fused_rms_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    native_batch_norm native_group_norm native_layer_norm
""")
ARITHMETIC = _names("""
    _prelu_kernel abs add addcdiv addcmul bernoulli bitwise_and bitwise_not bitwise_or ceil celu
    clamp clamp_max clamp_min cos div elu eq erf exp floor floor_divide fmod ge gelu glu gt
    hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp log log1p
    log_sigmoid_forward logical_and logical_not logical_or lt masked_fill maximum minimum mish
    mul nan_to_num native_dropout ne neg pow prelu reciprocal relu remainder round rsqrt rsub
    sigmoid sign silu sin softplus sqrt square sub tanh threshold where
    _adaptive_avg_pool2d _adaptive_avg_pool3d _log_softmax _safe_softmax _softmax
    adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d all amax amin any argmax argmin
    _embedding_bag _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d grid_sampler_2d grid_sampler_3d
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d
    addr avg_pool1d avg_pool2d avg_pool3d col2im cumsum linalg_vector_norm logsumexp max
    max_pool2d max_pool2d_with_indices max_pool3d_with_indices mean min mkldnn_max_pool2d
    norm prod sort std std_mean sum topk var var_mean
""")
# What only creates, moves or reads data.
MOVES = _names("""
    _assert_async _local_scalar_dense _reshape_alias _reshape_copy _to_copy _unsafe_view alias
    arange
    as_strided cat channel_shuffle chunk clone constant_pad_nd contiguous copy detach diagonal
    embedding empty empty_like empty_strided expand eye fill flip full full_like gather im2col
    index index_put index_select lift_fresh linspace movedim narrow native_channel_shuffle
    new_empty new_empty_strided new_full new_ones new_zeros ones ones_like permute pixel_shuffle
    pixel_unshuffle rand rand_like randn randn_like reflection_pad1d reflection_pad2d
    reflection_pad3d repeat replication_pad1d replication_pad2d replication_pad3d
    reshape roll scalar_tensor scatter select slice split split_with_sizes squeeze stack t
    transpose tril triu unbind unfold unsafe_split unsqueeze view view_as_complex view_as_real zero
    zeros zeros_like
""")
