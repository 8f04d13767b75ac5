"""Networks of torchvision and timm that are one of ours under other names, to carry weights over.

Such a peer lists its layers in the order of ours, the order of the paper's table, so that weights
are matched by position. `tests/test_peers.py` compares the logits of every pair named here.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import UsageError

Arguments = Mapping[str, Any]


class Peer(NamedTuple):
    """A library's network. `advice`: the arguments under which ours is the same network."""

    library: str
    arch: str
    advice: str = ""


# The names of a peer's weights do not depend on its width, so one width stands for all.
PEERS = {
    "mobilenetv2": (Peer("torchvision", "mobilenet_v2"), Peer("timm", "mobilenetv2_100")),
    "shufflenetv2": (Peer("torchvision", "shufflenet_v2_x1_0", "model.halving=equal"),),
    "squeezenet": (
        Peer("torchvision", "squeezenet1_0", 'model.version="1.0"'),
        Peer("torchvision", "squeezenet1_1", 'model.version="1.1"'),
    ),
    "ghostnet": (Peer("timm", "ghostnet_100", "model.release=official"),),
}
# Networks of one name that differ from ours in what they compute
OTHERS = {
    "mobilenetv3": (
        Peer("torchvision", "mobilenet_v3_large"),
        Peer("torchvision", "mobilenet_v3_small"),
        Peer("timm", "mobilenetv3_large_100"),
        Peer("timm", "mobilenetv3_small_100"),
    ),
}
OTHERS["mobilenet_ldc"] = OTHERS["mobilenetv3"]
DIFFERENCE = {
    "mobilenetv3": "squeeze-and-excitation here, as dcnn lists it, has no biases, precedes the "
    "activation and does not round its hidden channels to multiples of 8",
    "mobilenet_ldc": "ldc's networks have squeeze-and-excitation behind a block's output",
}


def carried(
    builder: str, arguments: Arguments, own: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[Mapping[str, Any], str]:
    """Return weights under the names of ours where they have those of a peer, and a remark.

    `builder`, `arguments`: of our network, whose state dict is `own`. Other weights are returned
    as they are, with "". Raises UsageError where the peer is another network than ours.
    """
    if own.keys() <= given.keys():
        return given, ""
    for peer in OTHERS.get(builder, ()):
        if _same_names(_names(peer), given):
            raise UsageError(
                f"weights of {peer.library}'s {peer.arch}, which is another network: "
                f"{DIFFERENCE[builder]}\nmodel={peer.library} model.arch={peer.arch} takes them"
            )
    for peer in _peers(builder, arguments):
        names = _names(peer)
        if _same_names(names, given):
            return _paired(peer, names, own, given), f"names of {peer.library}'s {peer.arch}"
    return given, ""


def _peers(builder: str, arguments: Arguments) -> Iterator[Peer]:
    yield from PEERS.get(builder, ())
    # timm keeps the linear layers of VGG as convolutions, under other names than torchvision
    arch = str(arguments.get("arch"))
    if builder == "torchvision" and arch.startswith("vgg"):
        yield Peer("timm", arch)


def _paired(
    peer: Peer, names: list[str], own: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Give each weight the name of ours at its position."""
    ours = list(own)
    kinds = [[name.rpartition(".")[2] for name in every] for every in (names, ours)]
    pairs = dict(zip(ours, names, strict=False))
    sizes = [own[n].numel() == given[p].numel() for n, p in pairs.items() if p in given]
    # the last layer may have another number of classes
    if kinds[0] != kinds[1] or not all(sizes[:-2]):
        advice = f"\n{peer.advice} is the same network" if peer.advice else ""
        raise UsageError(
            f"weights of {peer.library}'s {peer.arch} or another width of it, which this network "
            f"with its present arguments is not{advice}"
        )
    found = {ours: given[theirs] for ours, theirs in pairs.items() if theirs in given}
    return {
        # a 1 x 1 convolution on a single pixel is a linear layer; so is one over the whole map
        name: value.reshape(own[name].shape) if _is_flattened(value, own[name]) else value
        for name, value in found.items()
    }


def _is_flattened(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.ndim != other.ndim and one.numel() == other.numel()


def _same_names(names: list[str], given: Mapping[str, Any]) -> bool:
    """Whether the names are the same; old files lack the counters of batch norms."""

    def without(every: Any) -> set[str]:
        return {name for name in every if not str(name).endswith("num_batches_tracked")}

    return bool(names) and without(names) == without(given)


def _names(peer: Peer) -> list[str]:
    """The names of a peer's weights in order; none where the library is not installed."""
    try:
        library = importlib.import_module(
            "timm" if peer.library == "timm" else "torchvision.models"
        )
    except ModuleNotFoundError:
        return []
    with torch.device("meta"):
        model: nn.Module = (
            library.create_model(peer.arch)
            if peer.library == "timm"
            else library.get_model(peer.arch, weights=None)
        )
    return list(model.state_dict())
