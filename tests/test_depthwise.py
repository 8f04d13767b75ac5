"""Accelerated convolutions: results equal to PyTorch's, when they run, what they leave alone."""

import copy
import pickle
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_models import NAMES, build, config
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from lwbench.layers import depthwise, depthwise_cpu, native
from lwbench.layers.accelerated import accelerate, path
from lwbench.measure.complexity import count
from lwbench.measure.counters import thop_macs

pytest.importorskip("llvmlite")


def channels_last(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, h, w, c, generator=generator, dtype=dtype).permute(0, 3, 1, 2)


def convolution(channels: int, kernel: Any, dtype: torch.dtype = torch.float64, **options: Any):
    """An accelerated depthwise convolution; `library_only` makes it PyTorch's own."""
    torch.manual_seed(1)
    conv = nn.Conv2d(channels, channels, kernel, groups=channels, dtype=dtype, **options)
    depthwise.accelerate(conv)
    return conv


def results(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and the gradients of the input and the parameters, where they require one."""
    wanted = [t for t in (x, *model.parameters()) if t.requires_grad]
    out = model(x)
    weighting = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad((out * weighting).sum(), wanted)]


def both(model: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    with native.library_only():
        theirs = results(model, x)
    return results(model, x), theirs


def assert_same(model: nn.Module, x: Tensor, tolerance: float = 1e-12) -> None:
    for ours, theirs in zip(*both(model, x), strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=tolerance)


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by the output's shape at each use of the compiled kernel."""
    calls: list[Any] = []
    run = depthwise_cpu.weight_gradient

    def spy(kernel: Any, x: Tensor, gradient: Tensor, *rest: Any) -> Tensor:
        calls.append(tuple(gradient.shape))
        return run(kernel, x, gradient, *rest)

    monkeypatch.setattr(depthwise_cpu, "weight_gradient", spy)
    return calls


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by the input's shape at each matrix product."""
    calls: list[Any] = []
    run = F.linear

    def spy(x: Tensor, *rest: Any) -> Tensor:
        calls.append(tuple(x.shape))
        return run(x, *rest)

    monkeypatch.setattr(F, "linear", spy)
    return calls


# results


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3),
    channels=st.integers(2, 40),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    dilation=pairs,
    bias=st.booleans(),
)
@example(2, 33, (9, 7), (5, 5), (1, 1), (2, 2), (1, 1), True)
@example(2, 24, (8, 8), (5, 5), (2, 2), (2, 2), (1, 1), False)
@example(2, 3, (1, 1), (3, 3), (1, 1), (1, 1), (1, 1), True)
@example(2, 3, (1, 1), (5, 5), (1, 1), (3, 3), (2, 2), True)  # between two taps
@example(2, 3, (2, 1), (3, 3), (2, 2), (1, 1), (1, 1), True)
@example(1, 16, (3, 5), (7, 7), (1, 1), (6, 6), (1, 1), True)
@example(1, 4, (5, 5), (4, 2), (1, 1), (0, 3), (1, 1), True)  # wider than the flipped kernel takes
def test_output_and_gradients_equal_those_of_the_library(
    n, channels, size, kernel, stride, padding, dilation, bias
):
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(r > s + 2 * p for r, s, p in zip(reach, size, padding, strict=True)):
        return  # an error in the library
    conv = convolution(
        channels, kernel, stride=stride, padding=padding, dilation=dilation, bias=bias
    )
    assert_same(conv, channels_last(n, channels, *size).requires_grad_())


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("channels", [8, 24, 33, 96])
def test_single_precision_gradients_equal_those_of_the_library(kernel, channels):
    conv = convolution(channels, kernel, torch.float32, padding=kernel // 2)
    x = channels_last(4, channels, 9, 11, dtype=torch.float32).requires_grad_()
    assert_same(conv, x, tolerance=2e-6)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [5, 4, (3, 6)])
def test_padding_given_by_name(padding, kernel):
    conv = convolution(6, kernel, padding=padding)
    assert_same(conv, channels_last(2, 6, 9, 8).requires_grad_())


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_modes_other_than_zeros_use_the_library(mode, kernel_calls):
    conv = convolution(6, 5, padding=2, padding_mode=mode)
    assert_same(conv, channels_last(2, 6, 9, 8).requires_grad_(), tolerance=0)
    assert not kernel_calls


@pytest.mark.parametrize(
    ("kernel", "geometry"),
    [
        (5, {"padding": 2}),
        (3, {"stride": 2, "padding": 1, "dilation": 2}),
        ((3, 5), {"stride": (2, 1), "padding": (0, 3), "dilation": (1, 2)}),
    ],
)
def test_gradients_equal_finite_differences(kernel, geometry):
    conv = convolution(3, kernel, **geometry)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x,))

    weight, bias = (p.detach().clone().requires_grad_() for p in conv.parameters())
    x = channels_last(2, 3, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, weight, bias), fast_mode=False)


def test_second_derivatives_equal_those_of_the_library():
    conv = convolution(4, 5, padding=2)
    x = channels_last(2, 4, 6, 7).requires_grad_()

    def second() -> list[Tensor]:
        (first,) = torch.autograd.grad((conv(x) ** 2).sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), (x, conv.weight)))

    with native.library_only():
        theirs = second()
    for ours, expected in zip(second(), theirs, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("needs", range(8))
def test_gradients_are_given_to_what_requires_one(needs):
    conv = convolution(4, 5, padding=2)
    conv.weight.requires_grad_(bool(needs & 1))
    assert conv.bias is not None
    conv.bias.requires_grad_(bool(needs & 2))
    x = channels_last(2, 4, 6, 7).requires_grad_(bool(needs & 4))
    if needs:
        assert_same(conv, x)
    else:
        assert conv(x).grad_fn is None


def test_gradients_are_added_up_over_two_backward_passes():
    conv = convolution(4, 5, torch.float32, padding=2, bias=False)
    x = channels_last(2, 4, 6, 7, dtype=torch.float32)
    conv(x).sum().backward()
    once = conv.weight.grad.clone()
    conv(x).sum().backward()
    torch.testing.assert_close(conv.weight.grad, 2 * once)


# threads


@pytest.fixture(scope="module", params=[48, 203])
def large(request: pytest.FixtureRequest) -> tuple[nn.Conv2d, Tensor]:
    """Cases above the limit for parallel work, divided by images and, with 203, by channels."""
    channels = request.param
    conv = convolution(channels, 5, torch.float32, padding=2, bias=False)
    x = channels_last(5, channels, 20, 20, dtype=torch.float32)
    assert x.numel() * 25 > depthwise_cpu.SERIAL_MACS
    return conv, x


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_with_the_same_threads_gradients_are_the_same_bits(large, threads, count):
    threads(count)
    first, second = (results(*large) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_threads_change_the_last_digits_only(large, threads, count):
    threads(1)
    one = results(*large)[1]
    threads(count)
    torch.testing.assert_close(results(*large)[1], one, rtol=1e-4, atol=1e-4)


def test_parts_are_the_same_bits_with_and_without_openmp(large, threads, monkeypatch):
    threads(3)
    with_openmp = results(*large)[1]
    monkeypatch.setattr(native, "runtime", lambda: None)
    assert torch.equal(results(*large)[1], with_openmp)


def test_backward_passes_in_several_python_threads_do_not_disturb_each_other(large, threads):
    threads(2)
    expected = results(*large)[1]
    found: list[Tensor] = []
    workers = [
        threading.Thread(target=lambda: found.extend(results(*large)[1] for _ in range(5)))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 15 and all(torch.equal(f, expected) for f in found)


# when they are used


@pytest.mark.parametrize(
    ("kernel", "size", "is_fast"), [(3, 2, True), (3, 3, False), (5, 3, True), ((1, 9), 8, False)]
)
def test_the_kernel_runs_where_it_is_faster(kernel, size, is_fast, kernel_calls):
    conv = convolution(6, kernel, torch.float32, padding="same")
    results(conv, channels_last(2, 6, size, size, dtype=torch.float32).requires_grad_())
    assert bool(kernel_calls) == is_fast


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (2, 3), (4, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_1x1_convolutions_are_matrix_products_on_maps_up_to_2x2(size, bias, products):
    conv = nn.Conv2d(5, 7, 1, bias=bias, dtype=torch.float64)
    depthwise.accelerate(conv)
    x = channels_last(3, 5, *size).requires_grad_()
    ours, theirs = both(conv, x)
    assert bool(products) == (max(size) <= 2)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"groups": 5}])
def test_other_1x1_convolutions_use_the_library(options, products):
    conv = nn.Conv2d(5, 10, 1, dtype=torch.float64, **options)
    depthwise.accelerate(conv)
    assert_same(conv, channels_last(3, 5, 2, 2).requires_grad_(), tolerance=0)
    assert not products


@pytest.mark.parametrize("size", [1, 2, 7])
def test_outputs_stay_channels_last(size):
    """A layer that lost the layout would slow all those behind it down."""
    model = nn.Sequential(convolution(6, 5, padding=2), nn.Conv2d(6, 4, 1).double())
    depthwise.accelerate(model)
    out = model[0](channels_last(2, 6, size, size))
    strides = out.stride()
    assert strides[1] == 1 and strides[3] == 6
    assert model(channels_last(2, 6, size, size)).stride()[1] == 1


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 8, 5, 1, 2, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Conv2d(8, 16, 1),
    ).to(memory_format=torch.channels_last)


def _under_autocast(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(x)


def _forward_derivative(model: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(x, x))).tangent


def _traced(model: nn.Module, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(model, x)(x)


FALLBACKS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "contiguous": lambda model, x: model(x.contiguous()),
    "unbatched": lambda model, x: model[0](x[0]),
    "no image": lambda model, x: model[0](x[:0]),
    "half": lambda model, x: copy.deepcopy(model).bfloat16()(x.bfloat16()),
    "autocast": _under_autocast,
    "meta": lambda model, x: copy.deepcopy(model).to("meta")(x.to("meta")).shape,
    "vmap": lambda model, x: torch.func.vmap(lambda image: model(image[None]))(x),
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (x,))[1],
    "forward mode": _forward_derivative,
    "trace": _traced,
    "export": lambda model, x: torch.export.export(model, (x,)).module()(x),
    "compile": lambda model, x: torch.compile(model, backend="aot_eager", fullgraph=True)(x),
}


@pytest.mark.parametrize("name", FALLBACKS)
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_other_cases_use_the_library_and_give_the_same_bits(name, kernel_calls, products):
    model, peer = depthwise.accelerate(small_network()), small_network()
    x = channels_last(2, 8, 9, 9, dtype=torch.float32)
    found, expected = FALLBACKS[name](model, x), FALLBACKS[name](peer, x)
    if isinstance(found, Tensor):
        assert torch.equal(found, expected)
        if found.requires_grad:
            found.float().sum().backward()
    else:
        assert found == expected
    assert not kernel_calls
    # where the first layer alone is left to the library, or tracing compares with a plain call
    if name not in ("contiguous", "unbatched", "no image", "trace"):
        assert not products


@pytest.mark.parametrize("wrong", ["channels", "kernel"])
def test_invalid_inputs_give_the_librarys_error(wrong):
    conv = convolution(6, 5)
    x = channels_last(2, 4, 9, 9) if wrong == "channels" else channels_last(2, 6, 3, 3)
    with pytest.raises(RuntimeError) as ours:
        conv(x.requires_grad_())
    with native.library_only(), pytest.raises(RuntimeError) as theirs:
        conv(x)
    assert str(ours.value) == str(theirs.value)


# what they leave alone


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_accelerated_and_independent_of_the_original(copied, kernel_calls):
    model = depthwise.accelerate(small_network())
    twin = copied(model)
    assert path(twin) == path(model) != "library"
    twin[0].dilation, twin[0].padding = (2, 2), (4, 4)
    x = channels_last(2, 8, 9, 9, dtype=torch.float32).requires_grad_()
    assert_same(twin, x, tolerance=1e-5)
    assert model[0].dilation == (1, 1)
    assert kernel_calls


def test_hooks_are_called_and_parametrisations_used(kernel_calls):
    model = depthwise.accelerate(small_network())
    torch.nn.utils.parametrizations.weight_norm(model[0])
    seen: list[tuple[int, ...]] = []
    model[0].register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    model(channels_last(2, 8, 9, 9, dtype=torch.float32)).sum().backward()
    assert seen == [(2, 8, 9, 9)] and kernel_calls == [(2, 8, 9, 9)]
    assert model[0].parametrizations.weight.original1.grad is not None


def test_accelerating_twice_changes_nothing():
    model = depthwise.accelerate(small_network())
    forwards = [m._conv_forward for m in model if isinstance(m, nn.Conv2d)]
    again = [m._conv_forward for m in depthwise.accelerate(model) if isinstance(m, nn.Conv2d)]
    assert again == forwards


def test_a_subclass_that_convolves_in_its_own_way_is_left_alone():
    class Padded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.pad(x, (0, 1, 0, 1)))

    conv = Padded(4, 4, 5, groups=4)
    assert path(depthwise.accelerate(conv)) == "library"


def test_operators_are_counted_as_without():
    x = channels_last(1, 8, 9, 9, dtype=torch.float32)
    totals = []
    for model in (small_network(), depthwise.accelerate(small_network())):
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        totals.append(counter.get_flop_counts())
    assert totals[0] == totals[1]


LIBRARIES = {
    "torchvision": ["mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x1_0"],
    "timm": ["mobilenetv3_small_100", "ghostnet_100", "tf_efficientnet_b0", "convnext_atto"],
}


def networks(quick: Collection[str]) -> Iterator[Any]:
    """All of conf/model and some of the libraries', those that are not `quick` marked as slow."""
    found = [(name, name, {}) for name in NAMES if name not in LIBRARIES]
    found += [(arch, name, {"arch": arch}) for name, all_ in LIBRARIES.items() for arch in all_]
    for label, name, changes in found:
        marks = [] if label in quick else [pytest.mark.slow]
        yield pytest.param(name, changes, id=label, marks=marks)


# variants of one builder differ in sizes only
ONE_OF_EACH = {config(name)["builder"]: name for name in NAMES}.values()
ALL_ARCHITECTURES = [arch for architectures in LIBRARIES.values() for arch in architectures]


@pytest.mark.parametrize(("name", "changes"), networks([*ONE_OF_EACH, *ALL_ARCHITECTURES]))
def test_state_and_types_of_every_network_stay_as_they_are(name, changes):
    """With the norms accelerated, too."""
    with torch.device("meta"):
        plain, model = (build(name, **changes) for _ in range(2))
    accelerate(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert repr(model) == repr(plain)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]


# layers with and without bias, squeeze-and-excitation, deformable layers, a library's own classes
@pytest.mark.parametrize(
    ("name", "changes"), networks(["mb0", "ldc3", "shufflenetv2_05", "mobilenet_v3_small"])
)
def test_counts_of_a_network_stay_as_they_are(name, changes):
    with torch.device("meta"):
        plain, model = (build(name, **changes) for _ in range(2))
    depthwise.accelerate(model)
    assert count(model, image_size=64) == count(plain, image_size=64)
    assert thop_macs(model, 64) == thop_macs(plain, 64)
    assert list(model.state_dict()) == list(plain.state_dict())


# training


@pytest.mark.parametrize("name", ["mb0", pytest.param("mobilenetv3_small", marks=pytest.mark.slow)])
def test_fifty_steps_of_training_equal_those_of_the_library(name, kernel_calls, products):
    """Double precision: in single precision rounding alone takes two trainings apart."""
    torch.manual_seed(0)
    start = build(name).double().to(memory_format=torch.channels_last)
    accelerate(start)
    images, labels = channels_last(6, 3, 32, 32), torch.arange(6)
    losses = []
    for forced in (False, True):
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        torch.manual_seed(0)
        for _ in range(50):
            optimizer.zero_grad()
            if forced:
                with native.library_only():
                    loss = F.cross_entropy(model(images), labels)
            else:
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert kernel_calls and products
    ours, theirs = torch.tensor(losses[:50]), torch.tensor(losses[50:])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


# where there is no compiler


def test_without_the_compiler_the_library_is_used(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: False)
    assert path(depthwise.accelerate(small_network())) == "library"


def test_a_compiler_that_fails_gives_a_warning_and_the_library(monkeypatch, caplog):
    def fail(kernel_width: int, dtype: torch.dtype) -> None:
        raise RuntimeError("no target for this processor")

    monkeypatch.setattr(depthwise_cpu, "_compile", fail)
    depthwise_cpu.compiled.cache_clear()
    try:
        model = depthwise.accelerate(small_network())
        assert path(model) == "library"
        assert "no target for this processor" in caplog.text
    finally:
        depthwise_cpu.compiled.cache_clear()
