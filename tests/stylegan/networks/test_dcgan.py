"""DCGAN as a family: one file and one registry entry, and every tool works with it, or says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import stylegan
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, store
from stylegan.cli import directions, film, generate, metrics, mix, project, train
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import Stage
from stylegan.networks.dcgan import BatchNorm, DCGANConfig
from stylegan.networks.inference import Renderer, folded
from stylegan.networks.registry import FAMILIES, build_discriminator, build_generator, config_from_json
from torch_utils.errors import UserError
from training.data.archive import ArchiveWriter
from training.runs.resume import preset

TINY = DCGANConfig(resolution=32, z_dim=6, fmap_base=64, fmap_max=8)
CONFIGS = {
    "rgb": TINY,
    "grey": replace(TINY, channels=1),
    "conditional": replace(TINY, num_classes=3),
    "28x28": replace(TINY, resolution=16, base=(7, 7), channels=1),
    "wide": replace(TINY, base=(4, 6)),
    "smallest": replace(TINY, resolution=8),
}
every_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


def networks(cfg: DCGANConfig, seed: int = 0) -> tuple[Generator, Discriminator]:
    """In training mode, with averages as after some steps."""
    torch.manual_seed(seed)
    G, D = build_generator(cfg), build_discriminator(cfg)
    for norm in [*G.modules(), *D.modules()]:
        if isinstance(norm, BatchNorm):
            norm.get_buffer("mean").normal_(std=0.1)
            norm.get_buffer("variance").uniform_(0.5, 2)
    return G, D


def classes(cfg: DCGANConfig, n: int) -> torch.Tensor | None:
    return torch.arange(n) % cfg.num_classes if cfg.num_classes else None


# The networks


@every_config
def test_shapes(cfg: DCGANConfig) -> None:
    G, D = networks(cfg)
    z, c = torch.randn(5, cfg.z_dim), classes(cfg, 5)
    ws = G.latents(z, c)
    assert ws.shape == (5, 1, cfg.z_dim + cfg.num_classes) == (5, cfg.num_ws, cfg.ws_dim)
    images = G(z, c)
    assert images.shape == (5, cfg.channels, *cfg.size(cfg.resolution)) and images.abs().max() <= 1
    scores, logits = D.outputs(images, c)
    assert scores.shape == (5,) and logits.shape == (5, 0) and scores.dtype == torch.float32
    maps = list(D.features(images))
    assert [m.shape[1] for m in maps] == [cfg.nf(res) for res in reversed(cfg.resolutions[:-1])]
    assert [tuple(m.shape[2:]) for m in maps] == [cfg.size(res) for res in reversed(cfg.resolutions[:-1])]
    rough = G(z, c, dtype=torch.bfloat16)
    assert rough.dtype == D(rough, c, dtype=torch.bfloat16).dtype == torch.float32
    assert (rough - images).abs().mean() < 0.05


def test_the_sizes_of_the_paper() -> None:
    cfg = DCGANConfig()
    assert [cfg.channels_at(res) for res in cfg.resolutions] == [1024, 512, 256, 128, 3]
    assert CONFIGS["28x28"].size(16) == (28, 28)
    G, D = networks(cfg)
    assert 3e6 < sum(p.numel() for p in D.parameters()) < sum(p.numel() for p in G.parameters()) < 2e7
    assert 0.019 < G.get_parameter("synthesis.weights.64").std().item() < 0.021


@every_config
def test_it_does_not_grow(cfg: DCGANConfig) -> None:
    assert cfg.stages == (cfg.resolution,) and cfg.full == Stage(cfg.resolution)
    assert cfg.noise_shapes(cfg.resolution) == cfg.style_dims() == [] and cfg.mixing_probability == 0
    assert [layer.resolution for layer in cfg.layers] == list(cfg.resolutions) and cfg.minibatch_group == 1
    G, _ = networks(cfg)
    G.eval()
    z, c = torch.randn(2, cfg.z_dim), classes(cfg, 2)
    assert torch.equal(G(z, c), G(z, c, stage=cfg.full)) and torch.equal(G(z, c), G(z, c, noise="none"))


def test_the_class_decides_image_and_score() -> None:
    cfg = CONFIGS["conditional"]
    G, D = networks(cfg)
    G.eval(), D.eval()
    z = torch.randn(1, 6).expand(3, -1)
    images = G(z, torch.arange(3))
    assert not torch.allclose(images[0], images[1])
    each = torch.stack([D(images, torch.full((3,), k)) for k in range(3)], dim=1)
    assert len(set(each[0].tolist())) == 3
    weights = torch.tensor([[0.2, 0.3, 0.5]]).expand(3, -1)
    torch.testing.assert_close(D(images, weights), (each * weights).sum(1))
    for use in (lambda: G(z), lambda: D(images), lambda: G(z, torch.tensor([0, 1, 3]))):
        with pytest.raises(UserError, match="0 to 2"):
            use()


@every_config
def test_settings_survive_json(cfg: DCGANConfig) -> None:
    assert config_from_json(json.loads(json.dumps(cfg.to_json()))) == cfg
    assert FAMILIES["dcgan"].config is DCGANConfig


@pytest.mark.parametrize("resolution", [4, 256])
def test_sizes_that_it_cannot_have(resolution: int) -> None:
    with pytest.raises(UserError, match=f"--resolution must be from 8 to 128 with DCGAN, got {resolution}"):
        replace(TINY, resolution=resolution).check()


# Batch norm


def test_training_normalises_by_the_batch_and_evaluation_by_the_averages() -> None:
    norm = BatchNorm(4)
    with torch.no_grad():
        norm.weight.fill_(1)
    x = 3 + 2 * torch.randn(16, 4, 5, 5)
    y = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    for _ in range(200):
        norm(x)
    torch.testing.assert_close(norm.get_buffer("mean"), x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.get_buffer("variance"), x.var((0, 2, 3)))
    norm.eval()
    torch.testing.assert_close(norm(x), y, atol=1e-3, rtol=1e-3)
    assert torch.equal(norm(x[:1]), norm(x)[:1])


def test_evaluation_keeps_the_averages_and_training_moves_them() -> None:
    G, D = networks(TINY)
    z = torch.randn(4, 6)

    def averages() -> dict[str, torch.Tensor]:
        both = {**{f"G.{k}": v for k, v in G.named_buffers()}, **{f"D.{k}": v for k, v in D.named_buffers()}}
        return {name: value.clone() for name, value in both.items()}

    G.eval(), D.eval()
    before = averages()
    D(G(z))
    assert len(before) == 2 * (3 + 2) and all(torch.equal(value, before[name]) for name, value in averages().items())
    G.train(), D.train()
    D(G(z))
    assert not any(torch.equal(value, before[name]) for name, value in averages().items())


def test_averages_stay_finite_when_a_step_diverges() -> None:
    norm = BatchNorm(2)
    x = torch.randn(4, 2, 3, 3)
    x[0, 0, 0, 0] = torch.inf
    norm(x)
    mean = norm.get_buffer("mean")
    assert mean[0] == 0 and mean[1] != 0 and bool(norm.get_buffer("variance").isfinite().all())


def test_a_training_image_depends_on_its_batch_and_a_generated_one_does_not() -> None:
    G, _ = networks(TINY)
    z = torch.randn(4, 6)
    assert not torch.allclose(G(z)[:1], G(z[:2])[:1])
    G.eval()
    torch.testing.assert_close(G(z)[:1], G(z[:2])[:1])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(1, 5))
def test_a_seed_is_the_same_image_to_the_last_bit_in_any_batch(seeds: list[int], batch: int) -> None:
    together = SHOWN.render(seeds, batch=batch)
    assert torch.equal(together[-1:], SHOWN.render(seeds[-1:]))


SHOWN = Renderer.of(networks(TINY)[0].eval().requires_grad_(False), TINY.full)


@every_config
def test_folded_weights_compute_the_same(cfg: DCGANConfig) -> None:
    G, _ = networks(cfg)
    G.eval()
    ws = G.latents(torch.randn(2, cfg.z_dim), classes(cfg, 2))
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(folded(G.synthesis, dtype)(ws, dtype=dtype), G.synthesis(ws, dtype=dtype))


# Training


@every_config
def test_every_weight_learns(cfg: DCGANConfig) -> None:
    G, D = networks(cfg)
    c = classes(cfg, 6)
    D(G(torch.randn(6, cfg.z_dim), c), c).square().sum().backward()
    silent = [name for net in (G, D) for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@every_config
def test_it_can_be_differentiated_twice_as_r1_does(cfg: DCGANConfig) -> None:
    _, D = networks(cfg)
    images = torch.randn(4, cfg.channels, *cfg.size(cfg.resolution), requires_grad=True)
    (grad,) = torch.autograd.grad(D(images, classes(cfg, 4)).sum(), images, create_graph=True)
    grad.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in D.named_parameters() if "weights" in name)


@every_config
def test_the_cost_is_what_a_forward_pass_takes(cfg: DCGANConfig) -> None:
    G, D = networks(cfg)
    G.eval(), D.eval()
    z, c = torch.randn(1, cfg.z_dim), classes(cfg, 1)
    for cost, forward in (
        (cfg.generator_cost(cfg.resolution), lambda: G(z, c)),
        (cfg.discriminator_cost(cfg.resolution), lambda: D(torch.zeros(1, cfg.channels, *cfg.size(cfg.resolution)), c)),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward()
        assert cost.gflop == pytest.approx(counter.get_total_flops() / 1e9)
    maps = sum(m.numel() for m in D.features(torch.zeros(1, cfg.channels, *cfg.size(cfg.resolution))))
    assert cfg.discriminator_cost(cfg.resolution).activations == maps
    height, width = cfg.size(cfg.resolution)
    assert cfg.generator_cost(cfg.resolution).activations == maps + cfg.channels * height * width


def test_presets_have_the_optimiser_of_the_paper() -> None:
    for name, resolution in (("dcgan-mnist", 32), ("dcgan-faces64", 64)):
        cfg = preset(name, 1)
        assert isinstance(cfg.model, DCGANConfig) and cfg.growth.initial == cfg.growth.final == resolution
        assert (cfg.optim.beta1, cfg.growth.lr.at(resolution), cfg.loss.name) == (0.5, 0.0002, "logistic")


# The tools


def call(command: click.Command, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def works(command: click.Command, *words: object) -> Result:
    result = call(command, *words)
    assert result.exit_code == 0, result.output
    return result


TRAINING = "--cfg dcgan-mnist --resolution 16 --fmap-base 64 --fmap-max 8 --z-dim 8 --batch 8 --tick 0.016 --snap 1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains by the preset, for some kimg, in a new folder. Twelve blotches of 28x28 are the data."""
    home = tmp_path_factory.mktemp("dcgan")
    rng = np.random.default_rng(0)
    with ArchiveWriter(home / "blotches.zip") as writer:
        for index in range(12):
            writer.add(rng.integers(0, 256, (7, 7, 1), np.uint8).repeat(4, 0).repeat(4, 1), index % 3)

    def run(name: str, kimg: float, *more: object) -> Path:
        works(train.main, "--outdir", home / name, "--data", home / "blotches.zip", *TRAINING.split(), "--kimg", kimg,
              "--device", "cpu", "--threads", 1, *more)  # fmt: skip
        (run_dir,) = (home / name).iterdir()
        return run_dir

    return run


@pytest.fixture(scope="module")
def run_dir(trained: Callable[..., Path]) -> Path:
    return trained("straight", 0.048)


def test_a_preset_trains_it(run_dir: Path) -> None:
    model = stylegan.load(run_dir)
    assert model.config.family == "dcgan" and model.stage == Stage(16) and model.kimg == 0.048
    assert model.generate([3])[0].size == (28, 28) and model.D is not None
    weights = build_generator(model.config).state_dict()
    means = [value for name, value in model.G.state_dict().items() if name.endswith(".mean")]
    assert model.G.state_dict().keys() == weights.keys() and all(mean.abs().max() > 0 for mean in means)


def test_a_resumed_run_is_the_same_to_the_last_bit(trained: Callable[..., Path], run_dir: Path) -> None:
    stopped = trained("stopped", 0.032)
    works(train.main, "--resume", stopped, "--kimg", 0.048, "--device", "cpu")
    for part in ("G", "D", "G_ema", "opt_g", "opt_d"):
        a, b = (torch.load(folder / "training-state.pt", weights_only=True)[part] for folder in (run_dir, stopped))
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    name = "network-snapshot-000000.safetensors"
    assert load_snapshot(stopped / name).fingerprint == load_snapshot(run_dir / name).fingerprint


def test_conditional_training_with_penalties(trained: Callable[..., Path]) -> None:
    folder = trained("conditional", 0.016, "--cond", 1, "--gamma", 1, "--batch-gpu", 4)
    model = stylegan.load(folder)
    assert model.config.num_classes == 3 and model.generate([1], c=2)[0].mode == "L"


def test_it_is_generated_interpolated_and_measured(run_dir: Path, tmp_path: Path) -> None:
    network = ["--network", run_dir, "--device", "cpu"]
    works(generate.main, *network, "--seeds", "0-4", "--grid", "--save-latents", "--outdir", tmp_path / "out")
    again = tmp_path / "out" / "pictures.latent.safetensors"
    works(generate.main, *network, "--seeds", again, "--outdir", tmp_path / "again")
    for name in (f"seed{seed:04d}.png" for seed in range(5)):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    works(film.main, *network, "--seeds", "0-2", "--space", "z", "--frames", 2, "--out", tmp_path / "frames")
    frames = sorted((tmp_path / "frames").iterdir())
    assert len(frames) == 5
    with Image.open(frames[0]) as first, Image.open(tmp_path / "out/seed0000.png") as seed:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(seed))
    works(metrics.main, *network, "--metrics", "msssim4,diversity8", "--outdir", tmp_path / "metrics")
    assert len(list((tmp_path / "metrics").glob("metric-*.jsonl"))) == 2


def test_what_it_has_not_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, eva = tmp_path / "dcgan.safetensors", tmp_path / "eva.png"
    store(network, Snapshot(build_generator(TINY), build_discriminator(TINY), TINY, TINY.full, 1.0, "faces"))
    Image.new("RGB", (32, 32)).save(eva)
    out = ["--network", network, "--device", "cpu", "--outdir", tmp_path / "out"]
    find = ["--network", network, "--device", "cpu", "--dest", tmp_path / "a.direction.safetensors"]
    no_w, no_styles = "DCGAN has no w, because it generates images from z directly", "this DCGAN network has no styles"
    for command, words, says in (
        (mix.main, ["--rows", 1, "--cols", 2, *out], no_styles),
        (project.main, ["--target", eva, *out], no_w),
        (generate.main, ["--seeds", 1, "--trunc", 0.5, *out], f"{no_w}; leave out the truncation of 0.5"),
        (generate.main, ["--seeds", eva, *out], no_w),
        (film.main, ["--seeds", "0-1", "--space", "w", *out[:4], "--out", tmp_path / "out.webp"], no_w),
        (directions.main, ["find", "--method", "pca", *find], "has no"),
        (directions.main, ["find", "--method", "sefa", *find], "has no"),
        (metrics.main, ["--metrics", "ppl8_wend", *out], no_w),
        (generate.main, ["--seeds", 1, "--resolution", 16, *out], "--resolution must be one of 32 here, got 16"),
    ):
        result = call(command, *words)
        assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.output, result.output
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "out") == ["dcgan.safetensors", "eva.png"]


def test_training_settings_that_it_has_not_are_one_line(tmp_path: Path) -> None:
    common = ["--outdir", tmp_path / "runs", "--data", "mnist", "--cfg", "dcgan-mnist", "--device", "cpu"]
    for words, says in (
        (["--init-res", 8], "--init-res 8: DCGAN does not grow from there; leave it out"),
        (["--styles", 0], "--styles"), (["--mbstd-group", 4], "--mbstd-group"), (["--w-dim", 8], "--w-dim"),
    ):  # fmt: skip
        result = call(train.main, *common, *words)
        assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.output, result.output
    assert not (tmp_path / "runs").exists()
