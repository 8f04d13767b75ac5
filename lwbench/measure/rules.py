"""Counting rules as data: what each published way of counting MACs counts, and what operators are.

Papers state "MACs" or "FLOPs" without saying which tool counted them, and the tools differ in
biases, norms, activations and pooling. A network is walked once (`measure.walk`) into steps, each
of a kind and with `Amounts`; a rule says how much of which amount of which kind it counts. A kind
that a rule does not list counts 0 under it: the tool has no entry for it or gives it none.
"""

from typing import NamedTuple

from torch import nn


class Amounts(NamedTuple):
    """What a step amounts to at batch 1; in a rule, how often each is counted."""

    macs: int = 0  # multiply-accumulates of a convolution or matrix product: n(y) Cin / groups k k
    bias: int = 0  # output elements to which a bias is added
    inputs: int = 0  # n(x), elements read
    outputs: int = 0  # n(y), elements written
    window: int = 0  # adaptive pooling: n(y) times the (whole) size of its window


Rule = dict[str, Amounts]

_MACS = Amounts(macs=1)
_BIASED = Amounts(macs=1, bias=1)
_READ = Amounts(inputs=1)
_READ_TWICE = Amounts(inputs=2)  # a batch norm in evaluation: scale and shift

# What a tool that hooks modules does not see (F.conv2d, the @ operator, F.linear) has kinds of its
# own: functional_conv and matmul.
RULES: dict[str, Rule] = {
    # what papers mostly print: convolutions and matrix products, nothing else
    "plain": {
        "conv2d": _MACS,
        "conv1d": _MACS,
        "conv3d": _MACS,
        "conv_transpose": _MACS,
        "functional_conv": _MACS,
        "linear": _MACS,
        "matmul": _MACS,
    },
    # plain without its classifier, as ShuffleNetV1 is counted
    "conv_only": {
        "conv2d": _MACS,
        "conv1d": _MACS,
        "conv3d": _MACS,
        "conv_transpose": _MACS,
        "functional_conv": _MACS,
    },
    # thop 0.0.31 (2020): ldc
    "thop2020": {
        "conv2d": _BIASED,
        "conv1d": _BIASED,
        "conv3d": _BIASED,
        "linear": _MACS,
        "batch_norm2d": _READ_TWICE,
        "batch_norm2d_bare": _READ_TWICE,
        "batch_norm1d": _READ_TWICE,
        "batch_norm1d_bare": _READ_TWICE,
        "avg_pool": Amounts(outputs=1),
        "adaptive_avg_pool": Amounts(outputs=1, window=1),
    },
    # Swall0w/torchstat: hsnet
    "torchstat": {
        "conv2d": _BIASED,
        "linear": _MACS,
        "batch_norm2d": _READ_TWICE,
        "batch_norm2d_bare": _READ,
        "activation": _READ,
        "max_pool": _READ,
        "avg_pool": _READ,
    },
    # ptflops 0.6.4
    "ptflops": {
        "conv2d": _BIASED,
        "conv1d": _BIASED,
        "conv3d": _BIASED,
        "linear": _BIASED,
        "batch_norm2d": _READ_TWICE,
        "batch_norm2d_bare": _READ,
        "batch_norm1d": _READ_TWICE,
        "batch_norm1d_bare": _READ,
        "activation": _READ,
        "max_pool": _READ,
        "avg_pool": _READ,
        "adaptive_avg_pool": _READ,
    },
}

# Modules that tools know by their class; the first class that fits decides.
CONVOLUTIONS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv2d",
    nn.Conv1d: "conv1d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose2d: "conv_transpose",
    nn.ConvTranspose1d: "conv_transpose",
    nn.ConvTranspose3d: "conv_transpose",
}
OTHERS: dict[type[nn.Module], str] = {
    nn.BatchNorm2d: "batch_norm2d",
    nn.SyncBatchNorm: "batch_norm2d",
    nn.BatchNorm1d: "batch_norm1d",
    nn.ReLU: "activation",
    nn.ReLU6: "activation",
    nn.PReLU: "activation",
    nn.LeakyReLU: "activation",
    nn.ELU: "activation",
    nn.MaxPool2d: "max_pool",
    nn.AvgPool2d: "avg_pool",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool",
}

# Operators that every rule leaves at zero where no module above stands for them: elementwise
# arithmetic, norms, pooling and reductions called as functions, and what only moves or makes data.
# Whatever is neither here nor a convolution or a matrix product is reported as unknown.
_ELEMENTWISE = """
    _prelu_kernel abs add addcdiv addcmul bernoulli bitwise_and bitwise_not bitwise_or ceil celu
    clamp clamp_max clamp_min cos div elu eq erf exp floor floor_divide fmod ge gelu glu gt
    hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp log log1p
    log_sigmoid_forward logical_and logical_not logical_or lt masked_fill maximum minimum mish
    mul nan_to_num native_dropout ne neg pow prelu reciprocal relu remainder round rsqrt rsub
    sigmoid sign silu sin softplus sqrt square sub tanh threshold where
"""
_NORMS_AND_SUMS = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _fused_rms_norm _log_softmax
    _native_batch_norm_legit _native_batch_norm_legit_no_training _safe_softmax _softmax
    adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d all amax amin any argmax argmin
    avg_pool1d avg_pool2d avg_pool3d cudnn_batch_norm cumsum linalg_vector_norm logsumexp max
    max_pool2d max_pool2d_with_indices max_pool3d_with_indices mean min mkldnn_max_pool2d
    native_batch_norm native_group_norm native_layer_norm norm prod sort std std_mean sum topk
    var var_mean
"""
_MOVES = """
    _local_scalar_dense _reshape_alias _reshape_copy _to_copy _unsafe_view alias arange
    as_strided cat channel_shuffle chunk clone constant_pad_nd contiguous copy detach diagonal
    embedding empty empty_like empty_strided expand eye fill flip full full_like gather im2col
    index index_put index_select lift_fresh linspace movedim narrow native_channel_shuffle
    new_empty new_empty_strided new_full new_ones new_zeros ones ones_like permute pixel_shuffle
    pixel_unshuffle rand rand_like randn randn_like reflection_pad2d repeat replication_pad2d
    reshape roll scalar_tensor scatter select slice split split_with_sizes squeeze stack t
    transpose tril triu unbind unfold unsqueeze view view_as_complex view_as_real zero zeros
    zeros_like
"""
ZERO_COST = frozenset(f"aten.{op}" for op in (_ELEMENTWISE + _NORMS_AND_SUMS + _MOVES).split())


def priced(rule: Rule, kind: str, amounts: Amounts) -> int:
    """What `rule` counts for a step of that kind."""
    return sum(cost * amount for cost, amount in zip(rule.get(kind, ()), amounts, strict=False))


def kind_of(module: nn.Module, kinds: dict[type[nn.Module], str]) -> str | None:
    """The kind of a module by its class, or None; batch norms without weights are `..._bare`."""
    for cls, kind in kinds.items():
        if isinstance(module, cls):
            bare = kind.startswith("batch_norm") and not getattr(module, "affine", True)
            return f"{kind}_bare" if bare else kind
    return None
