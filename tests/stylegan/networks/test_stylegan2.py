"""StyleGAN2 as a family: its networks are what their config says, and every tool works with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from stylegan.checkpoints.conversion import blend
from stylegan.checkpoints.snapshot import load_snapshot, store
from stylegan.cli import directions, film, generate, metrics, mix
from stylegan.latents.notation import layers_of
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer, folded
from stylegan.networks.registry import build_discriminator, build_generator, config_from_json
from stylegan.networks.sampling import noise_at, places_of
from stylegan.networks.stylegan2 import StyleGAN2Config
from tests.stylegan.tiny import snapshot, trained
from torch_utils.errors import UserError

TINY = StyleGAN2Config(
    resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=8, mbstd_group=2
)
CONFIGS = {
    "skip": TINY,
    "resnet": replace(TINY, architecture="resnet", d_architecture="skip", channels=1),
    "orig": replace(TINY, architecture="orig", d_architecture="orig", channels=4, resample_filter=(1, 2, 1)),
    "conditional": replace(TINY, num_classes=3, mapping_dim=6, cmap_dim=5, cmap_layers=1),
    "an output for each class": replace(TINY, num_classes=3, cmap_dim=0),
    "4x6, clamped, without noise": replace(TINY, base=(4, 6), conv_clamp=0.7, noise=False, mbstd_group=0),
    "box filter": replace(TINY, resample_filter=(), architecture="resnet", mbstd_features=2),
    "smallest": replace(TINY, resolution=4),
}
every_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


def networks(cfg: StyleGAN2Config, seed: int = 0) -> tuple[Generator, Discriminator]:
    """With biases and noise strengths as after some steps."""
    torch.manual_seed(seed)
    G, D = build_generator(cfg), build_discriminator(cfg)
    with torch.no_grad():
        for name, value in [*G.named_parameters(), *D.named_parameters()]:
            if name.endswith(("bias", "noise_strength")):
                value.add_(0.3 * torch.randn_like(value))
    return G, D


def classes(cfg: StyleGAN2Config, n: int) -> torch.Tensor | None:
    return torch.arange(n) % cfg.num_classes if cfg.num_classes else None


def latents(G: Generator, n: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return G.latents(torch.randn(n, G.config.z_dim), classes(G.config, n)).detach()


# The config and the networks


@every_config
def test_the_layers_are_those_of_the_network(cfg: StyleGAN2Config) -> None:
    G, _ = networks(cfg)
    assert config_from_json(json.loads(json.dumps(cfg.to_json()))) == cfg
    assert cfg.stages == (cfg.resolution,) and cfg.full == Stage(cfg.resolution)
    ws = latents(G)
    assert ws.shape == (2, cfg.num_ws, 8) and cfg.num_ws == 2 * len(cfg.resolutions)
    assert [style.shape[1] for style in G.styles(ws)] == cfg.style_dims()
    assert [tuple(noise.shape[2:]) for noise in G.own_noise()] == cfg.noise_shapes(cfg.resolution)
    for index, layer in enumerate(cfg.layers):
        maps = cfg.channels if layer.kind == "rgb" else cfg.nf(layer.resolution)
        assert G.activations(ws, index).shape == (2, maps, *cfg.size(layer.resolution))
        assert G.style_weight(index).shape == (layer.style_dim, 8)


def test_the_sizes_of_the_paper() -> None:
    cfg = StyleGAN2Config()
    assert [cfg.nf(res) for res in (4, 64, 128, 256, 512, 1024)] == [512, 512, 256, 128, 64, 32]
    assert (cfg.num_ws, len(cfg.layers)) == (18, 17 + 9)
    rows = {res: [layer.row for layer in cfg.layers if layer.resolution == res] for res in (4, 8, 1024)}
    assert rows == {4: [0, 1], 8: [1, 2, 3], 1024: [15, 16, 17]}  # a layer to the image shares the row of the next one
    assert [cfg.main_layers(row) for row in (0, 1, 17)] == [[0], [2], [25]]
    assert (layers_of("coarse", cfg), layers_of("middle", cfg)) == ([0, 1, 2], [3, 4, 5, 6])
    assert layers_of("fine", cfg) == list(range(7, 18))


@every_config
def test_shapes(cfg: StyleGAN2Config) -> None:
    G, D = networks(cfg)
    z, c = torch.randn(4, 8), classes(cfg, 4)
    images = G(z, c)
    assert images.shape == (4, cfg.channels, *cfg.size(cfg.resolution)) and images.dtype == torch.float32
    scores, logits = D.outputs(images, c)
    assert scores.shape == (4,) and logits.shape == (4, 0) and scores.dtype == torch.float32
    maps = list(D.features(images))
    assert [tuple(m.shape[1:]) for m in maps] == [(cfg.nf(res), *cfg.size(res)) for res in cfg.resolutions[::-1]]
    rough = G(z, c, dtype=torch.bfloat16)
    assert rough.dtype == D(rough, c, dtype=torch.bfloat16).dtype == torch.float32
    assert (rough - images).abs().mean() < 0.05 * images.abs().mean()


@pytest.mark.parametrize("name", ["conditional", "an output for each class"])
def test_the_class_decides_image_and_score(name: str) -> None:
    cfg = CONFIGS[name]
    G, D = networks(cfg)
    z = torch.randn(1, 8).expand(3, -1)
    images = G(z, torch.arange(3))
    assert not torch.allclose(images[0], images[1])
    each = [D(images[:1], torch.tensor([k])).item() for k in range(3)]
    assert len(set(each)) == 3
    for use in (lambda: G(z), lambda: D(images), lambda: G(z, torch.tensor([0, 1, 3]))):
        with pytest.raises(UserError, match="0 to 2"):
            use()
    with pytest.raises(UserError, match="--map-depth must be at least 1 with classes"):
        replace(cfg, mapping_layers=0).check()


def test_feature_maps_are_clamped() -> None:
    cfg = replace(TINY, conv_clamp=0.1, d_architecture="orig")  # a shortcut has no clamp
    G, D = networks(cfg)
    ws = latents(G)
    assert all(G.activations(ws, index).abs().max() <= 0.1 for index in range(len(cfg.layers)))
    assert all(m.abs().max() <= 0.1 for m in D.features(torch.randn(2, 3, 16, 16)))


def test_noise_is_made_of_places_as_of_maps() -> None:
    G, _ = networks(TINY)
    ws, places = latents(G), places_of(1, "noise", range(2), torch.device("cpu"))
    maps = noise_at(places, TINY.noise_shapes(16))
    torch.testing.assert_close(G.synthesis(ws, noise=places), G.synthesis(ws, noise=maps))
    assert torch.equal(G.synthesis(ws, noise=G.own_noise()), G.synthesis(ws))
    assert not torch.allclose(G.synthesis(ws, noise="none"), G.synthesis(ws))
    for wrong in ("some", maps[:2]):
        with pytest.raises(ValueError, match="noise must be"):
            G.synthesis(ws, noise=wrong)


@pytest.mark.parametrize("layer", range(len(TINY.layers)))
def test_styles_are_a_linear_function_of_a_row_and_can_be_edited(layer: int) -> None:
    G, _ = networks(TINY)
    ws, step = latents(G), torch.randn(8)
    moved = ws.clone()
    moved[:, TINY.layers[layer].row] += step
    torch.testing.assert_close(
        G.styles(moved)[layer] - G.styles(ws)[layer], (G.style_weight(layer) @ step).expand(2, -1)
    )
    edits = [there - here for there, here in zip(G.styles(moved), G.styles(ws), strict=True)]
    torch.testing.assert_close(G.synthesis(ws, edits=edits), G.synthesis(moved))


@every_config
def test_folded_weights_compute_the_same(cfg: StyleGAN2Config) -> None:
    G, D = networks(cfg)
    ws = latents(G)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(folded(G.synthesis, dtype)(ws, dtype=dtype), G.synthesis(ws, dtype=dtype))
    images = G.synthesis(ws)
    torch.testing.assert_close(folded(D)(images, classes(cfg, 2)), D(images, classes(cfg, 2)))


SHOWN = Renderer.of(trained(TINY).G, TINY.full)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), st.integers(1, 4))
def test_a_seed_is_the_same_image_to_the_last_bit_in_any_batch(seeds: list[int], batch: int) -> None:
    together = SHOWN.render(seeds, batch=batch, noise="random")
    assert torch.equal(together[-1:], SHOWN.render(seeds[-1:], noise="random"))


def convolution(x, w, stride, padding, transposed, extra, *, out_shape) -> int:
    return conv_flop_count(x, w, out_shape, transposed)


@every_config
def test_the_cost_is_what_a_forward_pass_takes(cfg: StyleGAN2Config) -> None:
    """Of the filters nothing is counted, nor of the small products that make w, styles and scores."""
    cfg = replace(cfg, resample_filter=())
    G, D = networks(cfg)
    ws, image = latents(G, 1), torch.zeros(1, cfg.channels, *cfg.size(cfg.resolution))
    for cost, forward in (
        (cfg.generator_cost(cfg.resolution), lambda: G.synthesis(ws)),
        (cfg.discriminator_cost(cfg.resolution), lambda: D(image, classes(cfg, 1))),
    ):
        ours = {torch.ops.stylegan.conv2d: convolution}
        with FlopCounterMode(display=False, custom_mapping=ours) as counter, torch.no_grad():
            forward()
        counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "conv" in str(op))
        assert cost.gflop == pytest.approx(counted / 1e9)
    maps = [
        cfg.nf(layer.resolution) * np.prod(cfg.size(layer.resolution)) for layer in cfg.layers if layer.kind == "conv"
    ]
    shortcuts = sum(maps[2::2]) if cfg.architecture == "resnet" else 0
    assert cfg.generator_cost(cfg.resolution).activations == sum(maps) + shortcuts


# Training


@every_config
def test_every_weight_learns(cfg: StyleGAN2Config) -> None:
    """But of an output for each class, only those of the classes that come."""
    G, D = networks(replace(cfg, conv_clamp=None))
    c = classes(cfg, 4)
    scores = D(G(torch.randn(4, 8), c), c)
    (scores * torch.tensor([1.0, -2.0, 3.0, 5.0])).sum().backward()
    silent = [name for net in (G, D) for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@every_config
def test_both_networks_can_be_differentiated_twice(cfg: StyleGAN2Config) -> None:
    """As R1 does with scores, and the path length with images."""
    G, D = networks(cfg)
    images = torch.randn(4, cfg.channels, *cfg.size(cfg.resolution), requires_grad=True)
    (grad,) = torch.autograd.grad(D(images, classes(cfg, 4)).sum(), images, create_graph=True)
    grad.square().sum().backward()
    ws = latents(G).requires_grad_()
    drawn = G.synthesis(ws)
    (path,) = torch.autograd.grad((drawn * torch.randn_like(drawn)).sum(), ws, create_graph=True)
    path.square().sum().backward()
    weights = [p for net in (G.synthesis, D) for name, p in net.named_parameters() if "weight" in name and p.ndim == 4]
    assert all(p.grad is not None and p.grad.any() for p in weights)


# The tools


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stylegan2") / "faces.safetensors"
    store(path, replace(trained(TINY), D=snapshot(TINY, with_d=True).D))
    return path


def works(command: click.Command, *words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("run", [
    lambda path, out: works(generate.main, *path, "--seeds", "0-1", "--save-latents", "--outdir", out),
    lambda path, out: works(mix.main, *path, "--rows", "1", "--cols", "2-3", "--styles", "coarse", "--outdir", out),
    lambda path, out: works(film.main, *path, "--seeds", "0-1", "--frames", 2, "--out", out / "frames"),
    lambda path, out: works(metrics.main, *path, "--metrics", "msssim4,ppl8_wend", "--outdir", out),
], ids=["generate", "mix", "film", "metrics"])  # fmt: skip
def test_tools_work_with_it(network: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    run(("--network", network, "--device", "cpu"), tmp_path)
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [
    ("--method", "sefa"), ("--method", "pca", "--samples", 64),
    ("--method", "activations", "--layer", 1, "--samples", 64),
], ids=lambda words: words[1])  # fmt: skip
def test_directions_are_found_and_move_its_images(network: Path, tmp_path: Path, words: tuple[object, ...]) -> None:
    common, dest = ("--network", network, "--device", "cpu"), tmp_path / "a.direction.safetensors"
    works(directions.main, "find", *common, *words, "--count", 2, "--dest", dest)
    assert dest.is_file()


def test_layers_of_two_networks_are_exchanged(network: Path, tmp_path: Path) -> None:
    """Layers to the image go with the convolution before them."""
    other = tmp_path / "other.safetensors"
    store(other, trained(TINY, seed=1))
    blend(network, other, 3, tmp_path / "both.safetensors")
    both, first, second = (load_snapshot(p).G.state_dict() for p in (tmp_path / "both.safetensors", network, other))
    coarse = {name for name, value in both.items() if torch.equal(value, first[name])}
    fine = {name for name, value in both.items() if name not in coarse and torch.equal(value, second[name])}
    assert coarse | fine == both.keys()
    assert {"synthesis.const", "synthesis.convs.8.1.weight", "synthesis.to_rgb.8.weight"} <= coarse
    assert {"synthesis.convs.16.0.weight", "synthesis.to_rgb.16.weight"} <= fine
    assert np.all([name.startswith("synthesis.") for name in fine])
