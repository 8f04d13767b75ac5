"""Accelerated batch norms: results equal to PyTorch's, when they run, what they leave alone."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_depthwise import FALLBACKS, channels_last
from torch import Tensor, nn

from lwbench.layers import native, norm, norm_cpu
from lwbench.layers.accelerated import accelerate, path

pytest.importorskip("llvmlite")

ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}


def normed(
    channels: int, activation: str = "relu", dtype: torch.dtype = torch.float64, **options: Any
) -> nn.Sequential:
    """An accelerated batch norm with random weights, and an activation."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm2d(channels, **options), ACTIVATIONS[activation]()).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    norm.accelerate(model)
    return model


def results(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, the gradients where they are required, and the buffers after two batches."""
    model = copy.deepcopy(model)
    wanted = [t for t in (x, *model.parameters()) if t.requires_grad]
    model(x * 0.5 - 1)
    out = model(x)
    weighting = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    gradients = torch.autograd.grad((out * weighting).sum(), wanted) if wanted else ()
    return [out, *gradients, *(b.double() for b in model.buffers())]


def assert_same(model: nn.Module, x: Tensor, tolerance: float = 1e-11) -> None:
    ours = results(model, x)
    with native.library_only():
        theirs = results(model, x)
    for mine, other in zip(ours, theirs, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(mine / scale, other / scale, rtol=0, atol=tolerance)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by the input's shape at each forward pass of the compiled code."""
    found: list[Any] = []
    run = norm_cpu.forward

    def spy(kernel: Any, x: Tensor, *rest: Any) -> Any:
        found.append(tuple(x.shape))
        return run(kernel, x, *rest)

    monkeypatch.setattr(norm_cpu, "forward", spy)
    return found


# results


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 4),
    channels=st.integers(1, 70),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    activation=st.sampled_from(list(ACTIVATIONS)),
    momentum=st.sampled_from([0.1, 1.0, 0.0, None]),
    tracks=st.booleans(),
)
@example(2, 33, (1, 1), "hardswish", 0.1, True)
@example(1, 130, (40, 40), "relu", None, True)  # several tiles of rows
def test_results_and_running_statistics_equal_those_of_the_library(
    n, channels, size, activation, momentum, tracks
):
    if n * size[0] * size[1] == 1:
        return  # an error in the library
    model = normed(channels, activation, momentum=momentum, track_running_stats=tracks)
    assert_same(model, channels_last(n, channels, *size).requires_grad_())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("channels", [8, 24, 33])
def test_single_precision_equals_that_of_the_library(activation, channels):
    model = normed(channels, activation, torch.float32)
    x = channels_last(4, channels, 9, 11, dtype=torch.float32) * 3 + 2
    assert_same(model, x.requires_grad_(), tolerance=5e-6)


@pytest.mark.parametrize("offset", [1e3, -1e4])
def test_a_mean_far_larger_than_the_deviation_costs_no_more_digits_than_in_the_library(offset):
    """A sum of squares would lose the variance altogether."""
    x = channels_last(4, 16, 20, 20) + offset
    exact = F.batch_norm(x, None, None, training=True)
    model = nn.Sequential(nn.BatchNorm2d(16))
    norm.accelerate(model)
    single = x.float()
    ours = (model(single) - exact).abs().max()
    with native.library_only():
        theirs = (model(single) - exact).abs().max()
    assert ours <= 2 * theirs


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation):
    model = normed(3, activation)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values = {"0.weight": weight, "0.bias": bias}
        return torch.func.functional_call(model, values, (x,))

    weight, bias = (p.detach().clone().requires_grad_() for p in model.parameters())
    x = channels_last(3, 3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, weight, bias), fast_mode=False)


@pytest.mark.parametrize("activation", ["relu", "hardswish"])
def test_second_derivatives_equal_those_of_the_library(activation):
    model = normed(4, activation)
    x = channels_last(2, 4, 6, 7).requires_grad_()

    def second() -> list[Tensor]:
        (first,) = torch.autograd.grad((model(x) ** 2).sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), (x, *model.parameters())))

    with native.library_only():
        theirs = second()
    for ours, expected in zip(second(), theirs, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("needs", range(8))
def test_gradients_are_given_to_what_requires_one(needs):
    model = normed(5)
    model[0].weight.requires_grad_(bool(needs & 1))
    model[0].bias.requires_grad_(bool(needs & 2))
    assert_same(model, channels_last(2, 5, 6, 7).requires_grad_(bool(needs & 4)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_that_are_not_numbers_stay_visible(activation):
    """Else a training that diverges would go on."""
    model = normed(4, activation, torch.float32)
    x = channels_last(2, 4, 3, 3, dtype=torch.float32)
    x[0, 1, 2, 2] = float("nan")
    out = model(x)
    assert out[:, 1].isnan().all() and not out[:, [0, 2, 3]].isnan().any()


def test_gradients_at_the_kinks_are_those_of_the_library():
    for name, kinks in {"relu": [0], "relu6": [0, 6], "hardswish": [-3, 3]}.items():
        model = normed(1, name)
        # of two values a norm makes -1 and 1, whatever they are
        x = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
        for kink in kinks:
            with torch.no_grad():
                model[0].weight.zero_()
                model[0].bias.fill_(kink)
            assert_same(model, x.clone().requires_grad_())


# threads


@pytest.mark.parametrize("count", [1, 2, 3])
def test_with_the_same_threads_results_are_the_same_bits(threads, count):
    threads(count)
    model = normed(24, "hardswish", torch.float32)
    x = channels_last(5, 24, 25, 25, dtype=torch.float32).requires_grad_()
    assert x.numel() > norm_cpu.SERIAL_VALUES
    first, second = results(model, x), results(model, x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_same(model, x, tolerance=1e-5)


def test_parts_are_the_same_bits_with_and_without_openmp(threads, monkeypatch):
    threads(3)
    model = normed(24, "relu", torch.float32)
    x = channels_last(5, 24, 25, 25, dtype=torch.float32).requires_grad_()
    with_openmp = results(model, x)
    monkeypatch.setattr(native, "runtime", lambda: None)
    found = results(model, x)
    assert all(torch.equal(a, b) for a, b in zip(found, with_openmp, strict=True))


# when they are used


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)
    ).to(memory_format=torch.channels_last)


# convolutions make tensors channels_last themselves; a norm refuses the other two
ELSEWHERE = ("contiguous", "unbatched", "no image")


@pytest.mark.parametrize("name", [n for n in FALLBACKS if n not in ELSEWHERE])
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_other_cases_use_the_library_and_give_the_same_bits(name, calls):
    model, peer = accelerate(small_network()), small_network()
    if name in ("vmap", "jvp", "trace"):  # running statistics cannot be updated under them
        model.eval(), peer.eval()
    x = channels_last(2, 8, 9, 9, dtype=torch.float32)
    found, expected = FALLBACKS[name](model, x), FALLBACKS[name](peer, x)
    assert torch.equal(found, expected) if isinstance(found, Tensor) else found == expected
    assert not calls


def test_other_memory_formats_use_the_library(calls):
    layer = normed(8)
    x = channels_last(2, 8, 3, 3).contiguous()
    with native.library_only():
        expected = layer(x)
    assert torch.equal(layer(x), expected) and not calls


OTHER_NORMS: dict[str, Callable[[], nn.Module]] = {
    "without weights": lambda: nn.BatchNorm2d(8, affine=False),
    "one dimension": lambda: nn.BatchNorm1d(8),
    "in evaluation": lambda: nn.BatchNorm2d(8).eval(),
    "group norm": lambda: nn.GroupNorm(2, 8),
}


@pytest.mark.parametrize("name", OTHER_NORMS)
def test_other_norms_use_the_library(name, calls):
    layer = OTHER_NORMS[name]()
    norm.accelerate(layer)
    x = channels_last(2, 8, 3, 3, dtype=torch.float32)
    layer(x.flatten(2) if name == "one dimension" else x)
    assert not calls


@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (1, 8, 1, 1)])
def test_invalid_inputs_give_the_librarys_error(shape):
    layer = normed(8)
    with pytest.raises((RuntimeError, ValueError)) as ours:
        layer(channels_last(*shape))
    with native.library_only(), pytest.raises((RuntimeError, ValueError)) as theirs:
        layer(channels_last(*shape))
    assert str(ours.value) == str(theirs.value)


# what they leave alone


@pytest.mark.parametrize("layer", [0, 1])
def test_hooks_see_what_they_would_see_without(layer):
    model, seen = normed(6), []
    model[layer].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    x = channels_last(2, 6, 5, 5)
    model(x)
    with native.library_only():
        model(x)
    for mine, other in zip(*seen, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_accelerated_and_independent_of_the_original(copied, calls):
    model = accelerate(small_network())
    twin = copied(model)
    assert path(twin) == path(model) != "library"
    twin(channels_last(2, 8, 9, 9, dtype=torch.float32))
    assert calls
    assert twin[1].num_batches_tracked == 1 and model[1].num_batches_tracked == 0
    twin[2] = nn.Tanh()
    assert twin(channels_last(2, 8, 9, 9, dtype=torch.float32)).min() < 0


def test_an_activation_in_place_leaves_the_norms_input_alone():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True)).double()
    norm.accelerate(model)
    x = channels_last(2, 4, 3, 3)
    before = x.clone()
    model(x)
    assert torch.equal(x, before)


# fifty steps of training and the state of all networks are compared in test_depthwise.py, for both
# kinds of layers


# where there is no compiler


def test_a_compiler_that_fails_gives_a_warning_and_the_library(monkeypatch, caplog):
    def fail(activation: str, dtype: torch.dtype) -> None:
        raise RuntimeError("no target for this processor")

    monkeypatch.setattr(norm_cpu, "_compile", fail)
    norm_cpu.compiled.cache_clear()
    try:
        model = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
        norm.accelerate(model)
        assert path(model) == "library"
        assert "no target for this processor" in caplog.text
    finally:
        norm_cpu.compiled.cache_clear()
