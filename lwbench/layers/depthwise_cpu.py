"""The weight gradient of a depthwise convolution on a CPU, compiled when it is first needed.

PyTorch's own takes 5 to 20 times as long as the forward pass for 5 x 5 and 7 x 7 kernels. The loops
of `depthwise_llvm` are compiled by llvmlite, the compiler library of numba, in 0.1 s a kernel width
for the processor at hand. Every process compiles its own: nothing is stored on disk that could be
damaged, outdated or half written.

The work is divided into as many parts as PyTorch has threads: by channels, or, where these are few,
by images. Parts of the images have sums of their own, which are added up in a fixed order, so that
the result depends on the number of threads and on nothing else. The parts run on the threads that
PyTorch's own operators run on.
"""

import ctypes
import logging
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# Below so many multiplications (about 0.1 ms) a part costs more to hand over than to compute.
SERIAL_MACS = 1 << 20
# With fewer channels a part, vector registers would stay half empty.
PART_CHANNELS = 64

Pair = tuple[int, ...]  # (vertical, horizontal)


class Kernel(NamedTuple):
    """Entry points of the compiled code for one kernel width and type."""

    part: Callable[[Any, int], None]  # (fields, number of the part)
    team: int  # address of the function that each thread of an OpenMP team calls with the fields


class OpenMP(NamedTuple):
    """What is used of the OpenMP runtime that PyTorch has loaded."""

    parallel: Callable[..., None]  # GOMP_parallel(function, its argument, threads, flags)
    thread_number: int  # address of omp_get_thread_num
    team_size: int  # address of omp_get_num_threads


def available() -> bool:
    """Whether the compiler is installed; there are wheels for the usual platforms."""
    return find_spec("llvmlite") is not None


def weight_gradient(
    kernel: Kernel,
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """Gradient of `weight` (C, 1, KH, KW) from x (N, C, H, W) and that of the output.

    x and `gradient` are channels_last and of the type that `kernel` was compiled for; pairs are
    (vertical, horizontal).
    """
    images, channels, height, width = x.shape
    kernel_height, kernel_width = weight.shape[-2:]
    is_small = gradient.numel() * kernel_height * kernel_width < SERIAL_MACS
    threads = 1 if is_small else torch.get_num_threads()
    is_wide = channels >= threads * PART_CHANNELS
    image_parts, channel_parts = (1, threads) if is_wide else (min(threads, images), 1)
    sums = x.new_zeros(image_parts, kernel_height * kernel_width, channels)
    values = (  # in the order of depthwise_llvm.FIELDS
        *(x.data_ptr(), gradient.data_ptr(), sums.data_ptr()),
        *(images, height, width, channels, *gradient.shape[-2:], kernel_height),
        *(*stride, *padding, *dilation),
        *(image_parts, channel_parts),
    )
    parts = image_parts * channel_parts
    fields = (ctypes.c_int64 * len(values))(*values)
    openmp = _openmp()
    if parts > 1 and openmp is not None:
        openmp.parallel(kernel.team, fields, parts, 0)
    else:
        for part in range(parts):
            kernel.part(fields, part)
    total = sums[0] if image_parts == 1 else sums.sum(0)
    return total.t().reshape(weight.shape)


@cache
def compiled(kernel_width: int, dtype: torch.dtype) -> Kernel | None:
    """The kernel of that width for float32 or float64; None, with a warning, if LLVM fails.

    A failure must not end a training that the library can do.
    """
    try:
        return _compile(kernel_width, dtype)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("PyTorch computes depthwise gradients, since llvmlite cannot: %s", reason)
        return None


def _compile(kernel_width: int, dtype: torch.dtype) -> Kernel:
    from llvmlite import binding  # absent from some platforms

    from . import depthwise_llvm

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features()
    register_bytes = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=2
    )
    openmp = _openmp()
    assembly = depthwise_llvm.generate(
        kernel_width,
        "float" if dtype == torch.float32 else "double",
        register_bytes,
        None if openmp is None else (openmp.thread_number, openmp.team_size),
    )
    module = binding.parse_assembly(assembly)
    module.verify()
    # the code is vectorised as written: looking for more takes longer and finds nothing
    tuning = binding.create_pipeline_tuning_options(speed_level=1)
    tuning.loop_unrolling = tuning.loop_vectorization = tuning.slp_vectorization = False
    passes = binding.create_pass_builder(target, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, target)
    engine.finalize_object()
    _engines.append(engine)
    part = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    return Kernel(part(engine.get_function_address("part")), engine.get_function_address("team"))


_engines: list[Any] = []  # an engine takes its code with it when it is freed


@cache
def _openmp() -> OpenMP | None:
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
