"""Networks that train faster on a CPU, with code that is compiled when training starts."""

from importlib.metadata import version

from torch import nn

from . import depthwise, norm


def accelerate(model: nn.Module) -> nn.Module:
    """Replace the computation of convolutions and batch norms; returns the model.

    Does nothing where the compiler (llvmlite) is missing or fails. Results differ from PyTorch's in
    the last digits: see `path`.
    """
    depthwise.accelerate(model)
    norm.accelerate(model)
    return model


def path(model: nn.Module) -> str:
    """How the network is computed: "library", or the compiler and its version.

    Digits of two paths differ, so a resumed run should have the path that it was started with.
    """
    found = any(depthwise.is_accelerated(m) or norm.is_accelerated(m) for m in model.modules())
    return f"llvmlite {version('llvmlite')}" if found else "library"
