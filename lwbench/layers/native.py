"""Compiled code on a CPU: llvmlite compiles it, PyTorch's OpenMP threads run it.

Code is compiled once a process, in about 0.1 s, for the processor at hand. Nothing is stored on
disk that could be damaged, outdated or half written. Where the compiler is missing or fails,
PyTorch computes instead.
"""

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Parallel(NamedTuple):
    """A compiled function that computes a piece of work in parts, `emit_team` in `assembly`."""

    part: Callable[[Any, int], None]  # (fields, number of the part)
    team: int  # address of the function that each thread of an OpenMP team calls with the fields

    def __call__(self, fields: Any, parts: int) -> None:
        """Compute all parts, on PyTorch's threads where there are several."""
        openmp = runtime()
        if parts > 1 and openmp is not None:
            openmp.parallel(self.team, fields, parts, 0)
        else:
            for part in range(parts):
                self.part(fields, part)


class OpenMP(NamedTuple):
    """What is used of the OpenMP runtime that PyTorch has loaded."""

    parallel: Callable[..., None]  # GOMP_parallel(function, its argument, threads, flags)
    thread_number: int  # address of omp_get_thread_num
    team_size: int  # address of omp_get_num_threads


def available() -> bool:
    """Whether the compiler is installed; there are wheels for the usual platforms."""
    return find_spec("llvmlite") is not None


class Code:
    """A compiled module: its functions by name."""

    def __init__(self, assembly: str) -> None:
        """Compile LLVM assembly; raises RuntimeError where LLVM cannot."""
        from llvmlite import binding  # absent from some platforms

        module = binding.parse_assembly(assembly)
        module.verify()
        target = _target()
        # vectorised as written and without redundancy: other passes take longer and find nothing
        tuning = binding.create_pipeline_tuning_options(speed_level=1)
        tuning.loop_unrolling = tuning.loop_vectorization = tuning.slp_vectorization = False
        passes = binding.create_pass_builder(target, tuning)
        passes.getModulePassManager().run(module, passes)
        # the engine takes its code with it when it is freed
        self._engine = binding.create_mcjit_compiler(module, target)
        self._engine.finalize_object()
        _engines.append(self._engine)

    def serial(self, name: str) -> Callable[[Any, int], None]:
        """The function `name(fields, number)`."""
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        return kind(self._engine.get_function_address(name))

    def parallel(self, name: str) -> Parallel:
        """The function `name`, with `team_<name>(fields)` for the threads of a team."""
        return Parallel(self.serial(name), self._engine.get_function_address(f"team_{name}"))


_engines: list[Any] = []


def _target() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=2,
    )


def register_bytes() -> int:
    """Width of the processor's vector registers."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def type_name(dtype: torch.dtype) -> str:
    """LLVM's name of a tensor's type."""
    return {torch.float32: "float", torch.float64: "double"}[dtype]


def team_functions() -> tuple[int, int] | None:
    """The addresses that `assembly.emit_team` needs, or None without a runtime."""
    openmp = runtime()
    return None if openmp is None else (openmp.thread_number, openmp.team_size)


@cache
def runtime() -> OpenMP | None:
    """The OpenMP runtime that PyTorch uses, or None where it cannot be told (not on Linux).

    A second runtime would have threads of its own, which would compete for the cores with those of
    PyTorch that still spin after its last operator.
    """
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    loaded = sorted(set(re.findall(r"/\S*/lib(?:g|i)?omp[^/\s]*\.so\S*$", maps, re.MULTILINE)))
    # wheels bring theirs, in torch/lib or torch.libs; other packages may have loaded another
    own = [path for path in loaded if path.startswith(str(Path(torch.__file__).parent))] or loaded
    if len(own) != 1:
        return None
    try:
        library = ctypes.CDLL(own[0])
        functions = library.omp_get_thread_num, library.omp_get_num_threads
        parallel = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.restype = None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    thread_number, team_size = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions)
    return OpenMP(parallel, thread_number, team_size)


@contextmanager
def library_only() -> Iterator[None]:
    """Inside the `with` block, accelerated networks compute as PyTorch does."""
    global _library_only
    before, _library_only = _library_only, True
    try:
        yield
    finally:
        _library_only = before


_library_only = False


def may_replace(x: Tensor, *others: Tensor) -> bool:
    """Whether all are ordinary float tensors of one type on the CPU, with no tool watching.

    `x`, the layer's input, must have four dimensions and at least one element.
    """
    return not (
        _library_only
        or torch.compiler.is_compiling()
        or _is_watched()
        or type(x) is not Tensor  # subclasses, such as the fake tensors of exporters
        or x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.float64)
        or x.ndim != 4
        or x.numel() == 0
        or torch.is_autocast_enabled("cpu")
        or any(
            type(other) not in (Tensor, torch.nn.Parameter)
            or other.device.type != "cpu"
            or other.dtype != x.dtype
            for other in others
        )
    )


def _is_watched() -> bool:
    """Whether a tool follows the operators, which must then be those that it knows."""
    return (
        torch._C._len_torch_dispatch_stack() > 0  # counters, fake tensors
        or torch._C._are_functorch_transforms_active()  # torch.func: grad, vmap, jvp
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie together, in a tensor without gaps."""
    return x.is_contiguous(memory_format=torch.channels_last)
