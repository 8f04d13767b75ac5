"""lwbench: what a lightweight image classifier costs, how well it does, and whether the difference
is real.

The functions are those of `lwbench.api`, loaded on first use: importing lwbench imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import count, create_model, fuse, list_models, load_runs, train

__version__ = "0.1.0"
__all__ = ["__version__", "count", "create_model", "fuse", "list_models", "load_runs", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("lwbench.api"), name)
    raise AttributeError(f"module 'lwbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
