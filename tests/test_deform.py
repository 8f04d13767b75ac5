"""Deformable convolution against torchvision's operator, and what a training needs of it."""

import copy
import os
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lwbench.layers import deform_operator
from lwbench.layers.deform import DeformConv2d, stem_conv
from lwbench.layers.deform_operator import deform_conv2d
from lwbench.registry import MODELS

PURE = ["cpu", "grid_sample"]


def case(
    n: int = 2,
    channels: int = 4,
    out: int = 6,
    size: tuple[int, int] = (9, 7),
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    groups: int = 1,
    spread: float = 2.0,
    masked: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[list[Tensor | None], dict[str, int]]:
    """Random x, offset, mask, weight (all with gradients) and the geometry."""
    generator = torch.Generator().manual_seed(seed)
    reach = dilation * (kernel - 1) + 1
    oh, ow = ((n + 2 * padding - reach) // stride + 1 for n in size)

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    x, weight = rand(n, channels, *size), rand(out, channels // groups, kernel, kernel)
    offset = (rand(n, 2 * kernel**2, oh, ow).detach() * spread).requires_grad_()
    mask = rand(n, kernel**2, oh, ow) if masked else None
    return [x, offset, mask, weight], {"stride": stride, "padding": padding, "dilation": dilation}


def results(name: str, tensors: list[Tensor | None], geometry: dict[str, int]) -> list[Tensor]:
    """The output and the gradients of what requires one, under one backend."""
    with deform_operator.backend(name):
        out = deform_conv2d(*tensors, **geometry)
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    weighting = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad((out * weighting).sum(), wanted)]


def assert_same(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for mine, oracle in zip(ours, theirs, strict=True):
        scale = max(1.0, oracle.abs().max().item())
        torch.testing.assert_close(mine / scale, oracle / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PURE)
def test_tensors_in_channels_last_give_the_same(name):
    """As a network is trained, and compiled for `lwbench bench`."""
    tensors, geometry = case()
    last = [t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in tensors]
    assert_same(results(name, last, geometry), results(name, tensors, geometry), 1e-12)


shapes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 3),
        "size": st.tuples(st.integers(5, 20), st.integers(5, 20)),
        "kernel": st.sampled_from([1, 2, 3, 5]),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 3),
        "dilation": st.just(1),
        "spread": st.sampled_from([0.0, 0.3, 3.0, 100.0]),
        "masked": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


@pytest.mark.parametrize("name", PURE)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=shapes, groups=st.sampled_from([1, 2, 4]))
def test_values_and_gradients_equal_torchvisions(name: str, shape: dict, groups: int) -> None:
    if name == "grid_sample" and shape["spread"] == 0.0:
        return  # at whole pixels it may take the slope of either side
    tensors, geometry = case(groups=groups, out=8, **shape)
    expected = results("torchvision", tensors, geometry)
    assert_same(results(name, tensors, geometry), expected, 1e-10)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=shapes)
def test_float32_agrees_within_1e_5(shape: dict) -> None:
    if shape["spread"] == 100.0:
        shape["spread"] = 1.0
    tensors, geometry = case(dtype=torch.float32, **shape)
    ours = results("cpu", tensors, geometry)
    assert_same(ours, results("torchvision", tensors, geometry), 1e-5)


@pytest.mark.parametrize("name", PURE)
def test_dilation_and_grouped_kernels_equal_torchvisions(name: str) -> None:
    tensors, geometry = case(size=(16, 13), kernel=3, dilation=2, padding=2, groups=2, stride=2)
    expected = results("torchvision", tensors, geometry)
    assert_same(results(name, tensors, geometry), expected, 1e-10)


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("masked", [True, False])
def test_channels_last_equals_contiguous(channels: int, masked: bool) -> None:
    # 3 channels take the way for stems, 6 the general one
    tensors, geometry = case(n=3, channels=channels, stride=2, masked=masked)
    turned = [
        t
        if t is None
        else t.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        for t in tensors
    ]
    expected = results("torchvision", tensors, geometry)
    assert_same(results("cpu", turned, geometry), expected, 1e-10)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("masked", [True, False])
def test_gradcheck(groups: int, masked: bool) -> None:
    # whole pixels are kinks: keep the random offsets away from them
    tensors, geometry = case(n=1, size=(5, 4), kernel=2, padding=1, groups=groups, masked=masked)
    offset = tensors[1].detach()
    fraction = 0.1 + 0.8 * torch.rand(offset.shape, dtype=offset.dtype)
    tensors[1] = (offset.floor() + fraction).requires_grad_()

    def operator(*tensors: Tensor) -> Tensor:
        with deform_operator.backend("cpu"):
            return deform_conv2d(*tensors, **geometry)

    if not masked:
        x, offset, _, weight = tensors
        assert torch.autograd.gradcheck(
            lambda x, o, w: operator(x, o, None, w), (x, offset, weight)
        )
    else:
        assert torch.autograd.gradcheck(operator, tensors)


def test_an_image_without_gradient_gets_none_and_the_rest_stays() -> None:
    tensors, geometry = case()
    full = results("cpu", tensors, geometry)
    tensors[0] = tensors[0].detach()
    assert_same(results("cpu", tensors, geometry), [full[0], *full[2:]], 1e-12)


@pytest.mark.parametrize("frozen", [1, 2, 3])
def test_frozen_inputs_get_no_gradient(frozen: int) -> None:
    tensors, geometry = case()
    full = results("cpu", tensors, geometry)
    tensors[frozen] = tensors[frozen].detach()
    del full[frozen + 1]
    assert_same(results("cpu", tensors, geometry), full, 1e-12)


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 30])
def test_the_chunk_size_does_not_change_the_result(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, geometry = case(n=5)
    expected = results("torchvision", tensors, geometry)
    monkeypatch.setattr("lwbench.layers.deform_cpu.CHUNK_BYTES", chunk_bytes)
    assert_same(results("cpu", tensors, geometry), expected, 1e-10)


def test_a_second_derivative_is_refused() -> None:
    tensors, geometry = case()
    with deform_operator.backend("cpu"):
        out = deform_conv2d(*tensors, **geometry)
    (first,) = torch.autograd.grad(out.square().sum(), tensors[3], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("name", [*PURE, "torchvision"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38, -3e38])
def test_bad_offsets_crash_nothing(name: str, bad: float) -> None:
    tensors, geometry = case(dtype=torch.float32)
    with torch.no_grad():
        tensors[1][:, ::3] = bad
    assert all(t.isfinite().all() for t in results(name, tensors, geometry))


def test_an_offset_that_is_not_finite_counts_as_zero() -> None:
    tensors, geometry = case()
    with torch.no_grad():
        tensors[1][:, ::3] = float("nan")
    (bad, *_), tensors[1] = results("cpu", tensors, geometry), tensors[1].detach().nan_to_num(0.0)
    torch.testing.assert_close(bad, results("cpu", tensors, geometry)[0])


@pytest.mark.parametrize("name", PURE)
def test_bfloat16_keeps_coordinates_exact(name: str) -> None:
    # bf16 has 8 bits: a position beyond 256 would be off by pixels were it computed in bf16
    tensors, geometry = case(n=1, channels=2, size=(4, 300), dtype=torch.float32, spread=0.5)
    with torch.no_grad():  # whole pixels are kinks, and bf16 rounds to them
        tensors[1].copy_(tensors[1].floor() + 0.25)
    half = [t.detach().bfloat16().requires_grad_() for t in tensors]
    exact = [t.detach().float().requires_grad_() for t in half]
    ours, expected = results(name, half, geometry), results("cpu", exact, geometry)
    assert ours[0].dtype == torch.bfloat16
    assert_same([t.float() for t in ours], expected, 2e-2)


def test_autocast_runs_forward_and_backward() -> None:
    layer = DeformConv2d(3, 8, stride=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(torch.randn(2, 3, 16, 16))
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


WRONG_SHAPES = {  # what is changed of a valid call: x (2, 4, 9, 7), weight (6, 4, 3, 3), stride 1
    "stride of the offsets": {"stride": 2},
    "stride of the convolution": {"offset": (2, 18, 5, 4)},
    "padding": {"padding": 0},
    "dilation": {"dilation": 2},
    "batch of the offsets": {"offset": (1, 18, 9, 7)},
    "points of the offsets": {"offset": (2, 9, 9, 7)},
    "offsets of another kernel": {"offset": (2, 50, 9, 7)},
    "batch of the mask": {"mask": (1, 9, 9, 7)},
    "points of the mask": {"mask": (2, 1, 9, 7)},
    "size of the mask": {"mask": (2, 9, 7, 9)},
    "channels": {"weight": (6, 3, 3, 3)},
    "groups": {"weight": (5, 2, 3, 3)},
    "bias": {"bias": (5,)},
    "no batch dimension": {"x": (4, 9, 7)},
    "an empty output": {"weight": (6, 4, 13, 13), "offset": (2, 338, 0, 0), "mask": (2, 169, 0, 0)},
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_wrong_shapes_raise_where_torchvision_raises(name: str, device: str) -> None:
    from torchvision.ops import deform_conv2d as oracle

    shapes = {"x": (2, 4, 9, 7), "offset": (2, 18, 9, 7), "mask": (2, 9, 9, 7)}
    shapes |= {"weight": (6, 4, 3, 3), "bias": (6,)}
    geometry = {"stride": 1, "padding": 1, "dilation": 1}
    change = WRONG_SHAPES[name]
    shapes |= {key: value for key, value in change.items() if key in shapes}
    geometry |= {key: value for key, value in change.items() if key in geometry}
    t = {key: torch.randn(shape, device=device) for key, shape in shapes.items()}
    with pytest.raises(RuntimeError, match="deform_conv2d"):
        deform_conv2d(t["x"], t["offset"], t["mask"], t["weight"], t["bias"], **geometry)
    if device == "cpu":
        with pytest.raises((RuntimeError, ValueError)):
            oracle(t["x"], t["offset"], t["weight"], t["bias"], mask=t["mask"], **geometry)


def deformable_net() -> nn.Module:
    """A small network with a deformable stem whose offsets are not zero."""
    torch.manual_seed(0)
    net = nn.Sequential(stem_conv(3, 8, stem="ldc"), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    with torch.no_grad():
        for parameter in net[0].offset_parameters():
            parameter.normal_(0, 0.3)
    return net


def test_a_traced_network_agrees_with_the_eager_one_for_other_batches(tmp_path) -> None:
    net = deformable_net()
    traced = torch.jit.trace(net, torch.randn(2, 3, 16, 16))
    traced.save(tmp_path / "net.pt")
    loaded = torch.jit.load(tmp_path / "net.pt")
    for batch in (2, 5):
        x = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(loaded(x), net(x), rtol=1e-4, atol=1e-5)


def test_a_whole_network_is_traced() -> None:
    model = MODELS.build({"builder": "mobilenet_ldc", "stem": "dc"}, 10).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x), rtol=1e-4, atol=1e-5)


def test_tensorboard_draws_a_deformable_network(tmp_path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(deformable_net(), torch.randn(1, 3, 16, 16))
    assert any(path.stat().st_size > 1000 for path in tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript:DeprecationWarning")
def test_the_older_onnx_exporter_agrees(tmp_path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net, x = deformable_net(), torch.randn(2, 3, 16, 16)
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), path, dynamo=False, opset_version=17)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), net(x).detach(), rtol=0, atol=1e-5)


def test_unknown_backends_are_named() -> None:
    with pytest.raises(ValueError, match="grid_sample"), deform_operator.backend("cuda"):
        pass


LAYERS = [("dc", "separate"), ("ldc", "separate"), ("ldc", "shared")]


@pytest.mark.parametrize(("branch", "offsets"), LAYERS)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 1, 1), (3, 1, 2)])
def test_the_layer_starts_as_half_a_plain_convolution(
    branch: str, offsets: str, kernel: int, stride: int, dilation: int
) -> None:
    layer = DeformConv2d(
        4, 6, kernel, stride=stride, dilation=dilation, groups=2, branch=branch, offsets=offsets
    )
    x = torch.randn(2, 4, 17, 14)
    torch.testing.assert_close(layer(x), layer.conv(x) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("branch", "offsets"), LAYERS)
def test_every_offset_and_mask_parameter_moves_within_two_steps(branch: str, offsets: str) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(3, 8, stride=2, branch=branch, offsets=offsets)
    net = nn.Sequential(layer, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    x, labels = torch.randn(8, 3, 16, 16), torch.randint(5, (8,))
    net(x)
    before = [p.detach().clone() for p in layer.offset_parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    assert before
    for old, new in zip(before, layer.offset_parameters(), strict=True):
        assert (old != new).any()


def test_bad_weights_of_the_branch_do_not_crash_the_layer() -> None:
    layer = DeformConv2d(3, 8, stride=2)
    with torch.no_grad():
        layer.offset.bias.fill_(float("nan"))
    out = layer(torch.randn(2, 3, 16, 16))
    out.sum().backward()
    assert out.isfinite().all()


def trained(name: str, steps: int) -> float:
    """The loss of a small LDC0 after some steps of SGD under one backend.

    In float64: in float32 the oracle parts from itself by 10 % within ten steps when its input
    moves by 1e-7, so that no backend could be judged.
    """
    torch.manual_seed(0)
    model = MODELS.build({"builder": "mobilenet_ldc", "stem": "ldc"}, 10).double()
    x, labels = torch.randn(16, 3, 32, 32).double(), torch.randint(10, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with deform_operator.backend(name):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
    return loss.item()


def test_training_with_the_fast_path_reaches_the_oracles_loss() -> None:
    assert trained("cpu", 8) == pytest.approx(trained("torchvision", 8), rel=1e-6)


@pytest.mark.slow
def test_fifty_steps_with_the_fast_path_reach_the_oracles_loss() -> None:
    assert trained("cpu", 50) == pytest.approx(trained("torchvision", 50), rel=1e-4)


@pytest.mark.parametrize("stem", ["dc", "ldc"])
def test_meta_tensors_pass(stem: str) -> None:
    layer = stem_conv(3, 16, stem=stem).to("meta")
    assert layer(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 16, 16, 16)


def test_fake_tensors_pass() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        out = stem_conv(3, 16, stem="ldc")(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, 16, 16, 16)


def test_a_dispatch_mode_sees_the_multiplications() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    layer = stem_conv(3, 16, stem="ldc")
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(3, 3, 32, 32))
    # the convolution itself, and the branches: a depthwise and a pointwise pair each
    branches = 2 * 3 * 9 + 3 * 27
    assert counter.get_total_flops() == 2 * 3 * 16 * 16 * (16 * 27 + branches)


def test_a_copied_layer_keeps_its_output() -> None:
    layer, x = stem_conv(3, 8, stem="dc"), torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.slow
def test_a_compiled_layer_agrees_with_the_eager_one() -> None:
    torch.manual_seed(0)
    layer, x = stem_conv(3, 8, stem="ldc"), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for parameter in layer.offset_parameters():
            parameter.normal_(0, 0.3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)


def test_the_onnx_export_agrees(tmp_path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layer, x = stem_conv(3, 8, stem="ldc").eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for parameter in layer.offset_parameters():
            parameter.normal_(0, 0.3)
    path = tmp_path / "stem.onnx"
    torch.onnx.export(layer, (x,), path, dynamo=True, opset_version=20, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), layer(x).detach(), rtol=0, atol=1e-5)


INTERPRETED = "TRITON_INTERPRET"
interpreted = pytest.mark.skipif(
    os.environ.get(INTERPRETED) != "1", reason=f"run with {INTERPRETED}=1 by the test below"
)


TRITON_CASES = [
    {"channels": 3, "out": 5, "stride": 2},
    {"channels": 4, "out": 6, "groups": 2, "dilation": 2, "padding": 2},
    {"channels": 1, "out": 1, "kernel": 1, "padding": 0, "masked": False},
    {"channels": 2, "out": 3, "kernel": 5, "padding": 2, "spread": 20.0},
    {"channels": 2, "out": 3, "spread": 0.0},
]


@interpreted
@pytest.mark.parametrize("shape", TRITON_CASES, ids=str)
def test_the_fused_kernel_equals_torchvisions(shape: dict) -> None:
    tensors, geometry = case(dtype=torch.float32, size=(6, 5), **shape)
    expected = results("torchvision", tensors, geometry)
    assert_same(results("triton", tensors, geometry), expected, 1e-5)
    tensors[0] = tensors[0].detach()
    assert_same(results("triton", tensors, geometry), [expected[0], *expected[2:]], 1e-5)


@interpreted
def test_the_fused_kernel_takes_bfloat16_and_bad_offsets() -> None:
    tensors, geometry = case(n=1, channels=2, size=(5, 5), dtype=torch.float32)
    with torch.no_grad():
        tensors[1].copy_(tensors[1].floor() + 0.25)
        tensors[1][:, ::4] = float("nan")
    half = [t.detach().bfloat16().requires_grad_() for t in tensors]
    exact = [t.detach().float().requires_grad_() for t in half]
    ours, expected = results("triton", half, geometry), results("cpu", exact, geometry)
    assert ours[0].dtype == torch.bfloat16
    assert_same([t.float() for t in ours], expected, 2e-2)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_fused_kernel_passes_the_comparison_before_its_first_use(dtype: torch.dtype) -> None:
    from lwbench.layers import deform_triton

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert deform_triton.works(torch.device("cpu"), dtype)


def kernel(factor: float = 1.0, frozen: bool = False, error: str = ""):
    """A stand-in for the fused kernel: the reference, with a fault."""
    from lwbench.layers.deform_reference import reference

    class Kernel:
        @staticmethod
        def apply(x, offset, mask, weight, *geometry):
            if error:
                raise RuntimeError(error)
            return factor * reference(
                x, offset.detach() if frozen else offset, mask, weight, *geometry
            ) + (0 * offset.sum() if frozen else 0)

    return Kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "fault, reason",
    [
        ({"factor": 1.2}, "differ from the reference by"),
        ({"factor": float("nan")}, "differ from the reference by"),
        ({"frozen": True}, "differ from the reference by"),  # values agree, a gradient does not
        ({"error": "PTX was compiled with an unsupported toolchain"}, "unsupported toolchain"),
    ],
)
def test_a_wrong_kernel_is_disabled_with_one_warning(fault, reason, dtype, monkeypatch) -> None:
    deform_triton = pytest.importorskip("lwbench.layers.deform_triton")
    deform_triton.works.cache_clear()
    monkeypatch.setattr(deform_triton, "FusedDeformConv", kernel(**fault))
    with pytest.warns(UserWarning, match=reason) as caught:
        assert not any(deform_triton.works(torch.device("cpu"), dtype) for _ in range(3))
    assert len(caught) == 1
    deform_triton.works.cache_clear()


def test_an_agreeing_kernel_is_used_without_a_warning(monkeypatch) -> None:
    deform_triton = pytest.importorskip("lwbench.layers.deform_triton")
    deform_triton.works.cache_clear()
    monkeypatch.setattr(deform_triton, "FusedDeformConv", kernel())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert deform_triton.works(torch.device("cpu"), torch.float32)
    deform_triton.works.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get(INTERPRETED) == "1", reason="already inside")
def test_the_fused_kernels_tests_pass_under_tritons_interpreter() -> None:
    # in a process of its own: Triton's library is interpreted only if told before its import
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        [*command, "-k", "fused_kernel_equals or fused_kernel_takes or fused_kernel_passes"],
        env=os.environ | {INTERPRETED: "1", "PYTEST_ADDOPTS": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(TRITON_CASES) + 1 + 3} passed" in done.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", TRITON_CASES, ids=str)
def test_the_fused_kernel_runs_on_a_gpu(shape: dict, dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from lwbench.layers import deform_triton

    assert deform_triton.works(torch.device("cuda", 0), dtype)
    tensors, geometry = case(dtype=torch.float32, size=(20, 30), **shape)
    with torch.no_grad():
        tensors[1].copy_(tensors[1].floor() + 0.25)
    moved = [t if t is None else t.detach().to("cuda", dtype).requires_grad_() for t in tensors]
    exact = [t if t is None else t.detach().float().cpu().requires_grad_() for t in moved]
    ours = [t.float().cpu() for t in results("triton", moved, geometry)]
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert_same(ours, results("cpu", exact, geometry), tolerance)
