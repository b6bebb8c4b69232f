"""The benchmarks run at small sizes, and count correctly."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from benchmarks.counting import Traffic, added
from ops import VARIABLE
from ops.style_epilogue import style_epilogue
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from training.config import LossConfig, RunConfig
from training.inputs import draw
from training.schedule import GrowthSchedule, PerResolution

ROOT = Path(__file__).parents[1]
META = torch.device("meta")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(VARIABLE, "auto")
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def script(name: str) -> ModuleType:
    """A benchmark as a module. Not by import: benchmarks/ops.py has the name of the package that it measures."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> str:
    result = CliRunner().invoke(script(name).main, arguments)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_the_least_bytes():
    module = script("ops")
    case = module.Case("add", lambda x: [x, torch.zeros(x.shape[1])], lambda t, impl: t[0] + t[1][:, None, None])
    x = torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16)
    big, small = 2 * 3 * 4 * 5, 3 * 4
    # Forward: x in bfloat16 and a float32 bias, and a float32 result. Backward: dy, two gradients, and x again.
    assert module.least_bytes(case, case.tensors(x)) == {
        "forward": 2 * big + small + 4 * big, "forward+backward": 2 * (2 * big + small + 4 * big) + 2 * big,
    }  # fmt: skip
    linear = module.Case("add", case.tensors, case.run, linear=True)
    assert module.least_bytes(linear, case.tensors(x))["forward+backward"] == 2 * (2 * big + small + 4 * big)


def test_ops_has_a_row_for_everything_asked():
    out = run(
        "ops", "--json", "--seconds", "0", "--shape", "2x4x8x8", "--shape", "1x3x5x7", "--threads", "1", "--ops", "ref"
    )
    rows = json.loads(out)["rows"]
    assert len(rows) == len(script("ops").CASES) * 2 * 2 * 2 * 2  # shapes, dtypes, layouts, passes
    for row in rows:
        assert row["kernel_ms"] > 0 and row["reference_ms"] > 0 and row["gb_per_s"] > 0 and row["copy_share"] > 0
        assert row["shape"] in ("2x4x8x8", "1x3x5x7") and "compiled_ms" not in row


def test_ops_says_how_it_was_measured_and_reads_well():
    out = run("ops", "--op", "bias_act", "--shape", "2x4x8x8", "--seconds", "0", "--threads", "1", "--dtype", "bf16")
    head, *rows = out.splitlines()
    assert "1 threads" in head and "freed memory kept" in head
    assert len(rows) == 4 and all("GB/s" in row and "of copying  reference" in row for row in rows)


@pytest.mark.parametrize("shape", ["3x4", "0x1x1x1", "1x2x3x4x5", "axbxcxd"])
def test_ops_refuses_invalid_shapes(shape):
    result = CliRunner().invoke(script("ops").main, ["--shape", shape])
    assert result.exit_code == 2 and f"Invalid shape '{shape}'" in result.output


def test_ops_runs_as_a_script_although_it_has_the_name_of_the_package():
    command = [sys.executable, "benchmarks/ops.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ops.py")


def test_project_compares_several_images_with_one():
    out = run("project", "--resolution", "8", "--batch", "2", "--steps", "500", "--measured", "2", "--threads", "1",
              "--distance", "pixels")  # fmt: skip
    found = json.loads(out)
    assert found["seconds_of_each_of_2"] == pytest.approx(found["seconds_2"] / 2, abs=1e-3)
    assert found["ratio"] == pytest.approx(found["seconds_1"] / found["seconds_of_each_of_2"], rel=1e-2)
    assert found["distance_1"] > 0 and found["distance_2"] > 0


@pytest.mark.parametrize("name", ["train_step", "generate", "ops", "project"])
def test_they_have_the_option_ops(name):
    assert "--ops [auto|ref|strict]" in run(name, "--help")


def test_fusing_lessens_the_traffic_beside_the_convolutions():
    out = run("traffic", "--resolution", "16", "--batch", "4", "--fmap-base", "256", "--json")
    plain, fused = (json.loads(out)["iterations"]["16"][tier] for tier in ("plain", "fused"))
    assert plain["conv_kernels"] == fused["conv_kernels"] > 20 and plain["conv_gb"] == fused["conv_gb"] > 0
    assert fused["other_kernels"] < plain["other_kernels"] and fused["other_gb"] < plain["other_gb"]
    assert os.environ[VARIABLE] == "auto"


def test_traffic_can_list_operations():
    out = run("traffic", "--resolution", "8", "--batch", "2", "--fmap-base", "64", "--top", "100", "--dtype", "bf16")
    assert "stylegan.style_epilogue " in out and "aten.mul " in out


def test_lazy_penalties_count_for_their_share_of_steps():
    traffic = script("traffic")
    model = StyleGAN1Config(resolution=8, fmap_base=64, z_dim=8, w_dim=8, mapping_layers=1, mapping_dim=8)
    growth = GrowthSchedule(initial=8, final=8, batch=PerResolution(2))

    def kernels(interval: int) -> float:
        cfg = RunConfig(model=model, growth=growth, loss=LossConfig(r1_interval=interval))
        return float(added(traffic.counted(cfg, torch.float32, "auto")).kernels)

    every, half, never = (kernels(interval) for interval in (1, 2, 1_000_000))
    assert every > never + 10 and half == pytest.approx((every + never) / 2, abs=0.01)


PEER = {  # as much of a checkout as is asked of one
    **dict.fromkeys(("torch_utils/__init__.py", "torch_utils/ops/__init__.py", "training/__init__.py",
                     "torch_utils/ops/conv2d_gradfix.py"), ""),
    "torch_utils/ops/bias_act.py": """
        import torch
        class Fused(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, b):
                ctx.save_for_backward(x)
                return _plugin.bias_act(x, b, x, x, x, 0, 1, 1, 0.2, 1, -1)
            @staticmethod
            def backward(ctx, dy):
                x, = ctx.saved_tensors
                return _plugin.bias_act(dy, x, x, x, x, 1, 1, 1, 0.2, 1, -1), None
        def _bias_act_cuda(dim, act, alpha, gain, clamp):
            return Fused
        """,
    "torch_utils/ops/upfirdn2d.py": """
        class Fused:
            @staticmethod
            def apply(x, f):
                return _plugin.upfirdn2d(x, f, 2, 2, 1, 1, 2, 1, 2, 1, False, 4)
        def _upfirdn2d_cuda(up, down, padding, flip_filter, gain):
            return Fused
        """,
    "training/networks.py": """
        import torch
        class Generator(torch.nn.Module):
            def __init__(self, z_dim, w_dim, mapping_kwargs, synthesis_kwargs, **rest):
                super().__init__()
                self.z_dim, self.mapping = z_dim, torch.nn.Linear(z_dim, 3)
                self.synthesis = torch.nn.Linear(3, 3)
        Discriminator = lambda **kwargs: torch.nn.Linear(3, 1)
        """,
    "training/loss.py": """
        import torch
        from torch_utils.ops import bias_act, upfirdn2d
        class StyleGAN2Loss:
            def __init__(self, device, mapping, synthesis, D):
                self.mapping, self.synthesis, self.D = mapping, synthesis, D
            def accumulate_gradients(self, phase, real, real_c, z, c, sync, gain):
                x = self.synthesis(bias_act.bias_act(self.mapping(z), z))
                if phase == "Greg":
                    x.erf()
                if phase == "Dreg":
                    assert upfirdn2d.upfirdn2d(real, z[:, :4], up=2).shape[2:] == (16, 16)
                self.D(x).sum().backward()
        """,
}  # fmt: skip


def test_traffic_compares_with_another_project(tmp_path):
    for name, text in PEER.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    asked = "--resolution", "8", "--batch", "4", "--fmap-base", "64", "--peer", str(tmp_path), "--top", "100"
    *_, peer = run("traffic", *asked).split("  peer ")
    found = dict(re.findall(r"(\w+\.\w+) +([0-9.]+) ", peer))
    # Once in each phase, and in G's two the derivative; two of the four phases count for a quarter and a sixteenth.
    assert float(found["peer.bias_act"]) == pytest.approx(2 * 1.25 + 1.0625, abs=0.1)
    assert float(found["aten.erf"]) == pytest.approx(0.25, abs=0.1) and "peer.upfirdn2d" in found
    assert "of the kernels" in peer and "of the bytes" in peer
    (tmp_path / "training" / "loss.py").unlink()
    result = CliRunner().invoke(script("traffic").main, asked)
    assert result.exit_code == 2 and f"--peer: {tmp_path} is no checkout of" in result.output


def test_what_the_host_does_is_measured_and_drawing_does_not_depend_on_the_resolution():
    out = json.loads(run("host", "--resolution", "8", "--batch", "4", "--seconds", "0", "--json"))
    (found,) = out["us_per_image"].values()
    assert found["ratio"] == pytest.approx(found["numpy"] / found["drawing"]) and out["us_per_call"] > 0
    assert found["calls"] > 0 and found["reals"] > 0
    calls = set()
    for resolution in (8, 1024):
        with Traffic() as traffic:
            draw(StyleGAN1Config(resolution=resolution), 0, "d", range(4), resolution, None, META)
        calls.add((traffic.calls, added(traffic.counts).bytes))
    assert len(calls) == 1


def test_two_checkouts_are_measured_in_turns(tmp_path):
    for name, speed in (("a", 6), ("b", 2)):
        (tmp_path / name / "benchmarks").mkdir(parents=True)
        (tmp_path / name / "benchmarks" / "train_step.py").write_text(
            "import json, sys, pathlib\n"
            "done = pathlib.Path('../done')\n"
            f"done.open('a').write('{name}')\n"
            "turn = done.read_text().count('b')\n"
            "assert sys.argv[1:] == ['--batch=4', '--json']\n"
            f"print(json.dumps({{'images_per_s': {speed} + (turn == 3) * 100, 'peak_rss_mb': {speed} * 10}}))\n"
        )
    train_step, roots = script("train_step"), {"": tmp_path / "a", "other_": tmp_path / "b"}
    found = train_step.compared(roots, ["--batch=4"], 3)
    assert (tmp_path / "done").read_text() == "abbaab"
    assert found["images_per_s"] == 6 and found["images_per_s_ratio"] == 3 == found["peak_rss_mb_ratio"]
    assert found["most"] == 3 and found["least"] == pytest.approx(6 / 102)  # of the third turn
    with pytest.raises(UserError, match="AssertionError"):
        train_step.compared(roots, [], 1)


# What `Traffic` counts


def test_views_and_allocations_are_free_and_the_rest_is_inputs_and_outputs():
    x, bias = torch.zeros(4, 8, device=META), torch.zeros(8, device=META)
    with Traffic() as traffic:
        y = x.t().reshape(2, 2, 8)[0].expand(3, 2, 8).detach()
        y = torch.empty_like(y)
        x + bias
        x.mul_(2)
        torch.zeros(100) + 1  # not of this device
    # What is transposed must be copied to be reshaped.
    assert set(traffic.counts) == {"aten.clone", "aten.add", "aten.mul_"}
    assert (traffic.counts["aten.add"].kernels, traffic.counts["aten.add"].bytes) == (1, 4 * (32 + 8 + 32))
    assert traffic.counts["aten.mul_"].bytes == 4 * (32 + 32)
    assert added(traffic.counts, ["aten.add", "aten.mul_"]).bytes == 4 * (72 + 64)


def test_grouped_convolutions_are_told_apart():
    x, weight = torch.zeros(2, 4, 8, 8, device=META, requires_grad=True), torch.zeros(4, 1, 3, 3, device=META)
    with Traffic() as traffic:
        F.conv2d(x, weight, groups=4).sum().backward()
        F.conv2d(x, weight.expand(4, 4, 3, 3))
    names = {"aten.convolution.grouped", "aten.convolution_backward.grouped", "aten.convolution"}
    assert names < set(traffic.counts)


def test_an_expanded_tensor_is_read_once():
    with Traffic() as traffic:
        torch.zeros(1, 8, device=META).expand(1000, 8).sum()
    assert traffic.counts["aten.sum"].bytes == 4 * (8 + 1)


def test_a_question_about_contents_is_answered_with_yes_and_counted():
    with Traffic() as traffic:
        assert bool(torch.zeros(3, device=META).isfinite().all())
    assert traffic.counts["aten._local_scalar_dense"].kernels == 1


def test_what_is_overwritten_is_not_read_and_what_is_filled_first_is_written_twice():
    x, y = torch.zeros(4, 8, device=META), torch.zeros(4, 8, device=META)
    with Traffic() as traffic:
        x.copy_(y)
        x.fill_(1)
        torch.zeros_like(x)
        F.pad(x, (0, 8))
    found = {name: (count.kernels, count.bytes / 4 / 32) for name, count in traffic.counts.items()}
    assert found == {
        "aten.copy_": (1, 2), "aten.fill_": (1, 1), "aten.zeros_like": (1, 1), "aten.constant_pad_nd": (2, 4),
    }  # fmt: skip


def test_convolutions_keep_channels_last_and_have_a_kernel_for_each_gradient():
    x = torch.zeros(2, 4, 8, 8, device=META, requires_grad=True)
    weight, bias = torch.zeros(4, 4, 3, 3, device=META, requires_grad=True), torch.zeros(4, device=META)
    with Traffic() as traffic:
        y = F.conv2d(x.to(memory_format=torch.channels_last), weight, bias, padding=1)
        y.backward(torch.empty_like(y))
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    assert traffic.counts["aten.convolution"].kernels == 2  # the bias
    backward = traffic.counts["aten.convolution_backward"]
    assert (backward.kernels, backward.bytes) == (2, 4 * 2 * (2 * 2 * 4 * 64 + 4 * 4 * 9))


@pytest.mark.parametrize("lengths, lists, launches", [([1] * 48, 3, 1), ([1] * 49, 3, 2), ([65536 * 321, 1], 1, 2)])
def test_lists_of_tensors_are_worked_off_in_launches_of_limited_length(lengths, lists, launches):
    a, b = ([torch.zeros(n, device=META) for n in lengths] for _ in range(2))
    with Traffic() as traffic:
        if lists == 3:
            torch._foreach_add(a, b)
        else:
            torch._foreach_mul_(a, 2.0)
    (count,) = traffic.counts.values()
    assert count.kernels == launches and count.bytes == 4 * sum(lengths) * (3 if lists == 3 else 2)


@pytest.mark.parametrize("size, last, launches", [(16, True, (1, 2)), (64, True, (3, 4)), (64, False, (2, 3))])
def test_the_passes_of_the_epilogue(size, last, launches):
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.zeros(2, 8, size, size, device=META).to(memory_format=layout).requires_grad_()
    places, strength = torch.zeros(2, 2, dtype=torch.int64, device=META), torch.zeros(8, device=META)
    with Traffic() as traffic:
        y = style_epilogue(x, strength, places, strength)
        y.backward(torch.empty_like(y))
    forward, backward = (traffic.counts[f"stylegan.style_epilogue{end}"] for end in ("", "_grad"))
    assert (forward.kernels, backward.kernels) == launches
    again = launches[0] == 3  # x is read again for the result
    maps = 4 * x.numel()
    assert forward.bytes // maps == 2 + again and backward.bytes // maps == 3 + 2 * again


@pytest.mark.parametrize("mode, fused", [("auto", True), ("strict", True), ("ref", False)])
def test_on_meta_tensors_the_fused_op_stands_for_itself_without_a_compiler(mode, fused, monkeypatch):
    monkeypatch.setenv(VARIABLE, mode)
    x = torch.zeros(2, 3, 4, 4, device=META, requires_grad=True)
    with Traffic() as traffic:
        style_epilogue(x).sum().backward()
    assert ("stylegan.style_epilogue" in traffic.counts) == fused
    assert ("stylegan.style_epilogue_grad" in traffic.counts) == fused


def test_scaling_measures_processes_and_weighs_gradients():
    asked = ["--resolution", "8", "--batch", "2", "--steps", "1", "--json"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scaling.py", *asked],
        capture_output=True, text=True, check=True, env=os.environ | {VARIABLE: "ref"},
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["images_per_s"].keys() == {"1", "2"} and result["gain"] > 0 and 0 < result["share_of_sums"] < 1
    assert result["early"].keys() == {"gradients of D", "gradients of G"} and result["step_afterwards_ms"] > 0
    sizes = [row["megabytes"] for row in result["model"]]
    assert [row["resolution"] for row in result["model"]] == [8 << k for k in range(8)] and sizes == sorted(sizes)


@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_scaling_counts_what_has_gradients(resolution: int):
    model = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
    G, D = build_generator(model), build_discriminator(model)
    images = G.synthesis(G.broadcast(G.mapping(torch.randn(2, 8))), Stage(resolution), "none")
    D(images).sum().backward()
    quiet = sum(p.numel() for name, p in G.named_parameters() if "noise_strength" in name and p.grad is None)
    for network, without in ((G, quiet), (D, 0)):
        found = sum(p.numel() for p in network.parameters() if p.grad is not None)
        assert found <= script("scaling").reached(network, resolution) <= found + without


def test_the_soak_test_finds_wrong_reports_and_differing_states():
    soak = script("soak")
    fault = soak.Fault(lambda run: None, "is no good", (0,))
    assert soak.verdict(fault, soak.Ended(0, "state.pt is no good\n", "ops: reference\n")) == []
    wrong_reports = [
        (0, "", ""),
        (0, "a is no good\na is no good\n", ""),
        (0, "is no good", "odd"),
        (1, "is no good", ""),
    ]
    assert all(soak.verdict(fault, soak.Ended(*ended)) for ended in wrong_reports)
    one, other = {"G": {"w": torch.ones(3)}, "seconds": 1.0}, {"G": {"w": torch.ones(3)}, "seconds": 2.0}
    assert soak.differing(one, other) == []
    other["G"]["w"][1] += 1e-6
    assert soak.differing(one, other) == [".G.w"]
