"""The published files open as our networks, and anything that does not fit is refused with a reason."""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.checkpoints.tensorflow import (
    PublishedFile,
    PublishedNetwork,
    load_published,
    read_published,
    stage_of,
    translate,
    with_state,
)
from stylegan.checkpoints.unpickle import Record, read_pickle
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANGenerator
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

DATA = Path(__file__).parents[2] / "data"
STYLEGAN, PROGAN = DATA / "stylegan_r32.pkl", DATA / "progan_r32.pkl"
TINY = {"resolution": 8, "fmap_base": 16, "fmap_max": 6, "latent_size": 5, "dlatent_size": 7, "mapping_fmaps": 4,
        "mapping_layers": 2, "num_channels": 3, "label_size": 0}  # fmt: skip


def stylegan_variables(settings: dict[str, Any], lod: float = 0.0) -> dict[str, np.ndarray]:
    """Random variables of a published StyleGAN generator with these settings, under their published names."""
    rng = np.random.RandomState(0)
    shapes: dict[str, tuple[int, ...]] = {"dlatent_avg": (settings["dlatent_size"],)}
    width, w_dim = settings["latent_size"], settings["dlatent_size"]
    if settings["label_size"]:
        shapes["G_mapping/LabelConcat/weight"] = (settings["label_size"], width)
        width *= 2
    for index in range(settings["mapping_layers"]):
        out = w_dim if index == settings["mapping_layers"] - 1 else settings["mapping_fmaps"]
        shapes |= {f"G_mapping/Dense{index}/weight": (width, out), f"G_mapping/Dense{index}/bias": (out,)}
        width = out
    doublings = int(math.log2(settings["resolution"]))
    features = [min(settings["fmap_base"] >> stage, settings["fmap_max"]) for stage in range(doublings + 1)]
    for level in range(2, doublings + 1):
        res, before, here = 1 << level, features[level - 2], features[level - 1]
        layers = ("Const", "Conv") if level == 2 else ("Conv0_up", "Conv1")
        for half, name in enumerate(layers):
            layer = f"G_synthesis/{res}x{res}/{name}"
            if name == "Const":
                shapes[f"{layer}/const"] = (1, here, 4, 4)
            else:
                shapes[f"{layer}/weight"] = (3, 3, before if name == "Conv0_up" else here, here)
            shapes |= {f"{layer}/bias": (here,), f"{layer}/Noise/weight": (here,)}
            shapes |= {f"{layer}/StyleMod/weight": (w_dim, 2 * here), f"{layer}/StyleMod/bias": (2 * here,)}
            shapes[f"G_synthesis/noise{2 * level - 4 + half}"] = (1, 1, res, res)
        rgb = f"G_synthesis/ToRGB_lod{doublings - level}"
        shapes |= {f"{rgb}/weight": (1, 1, here, settings["num_channels"]), f"{rgb}/bias": (settings["num_channels"],)}
    variables = {name: rng.randn(*shape).astype(np.float32) for name, shape in shapes.items()}
    return variables | {"lod": np.float32(lod), "G_synthesis/lod": np.float32(0)}


def built(network: PublishedNetwork) -> torch.nn.Module:
    if network.kind == "generator":
        return with_state(build_generator, network.config, network.state)
    return with_state(build_discriminator, network.config, network.state)


@pytest.fixture(scope="module")
def stylegan() -> PublishedFile:
    return read_published(STYLEGAN)


@pytest.fixture(scope="module")
def progan() -> PublishedFile:
    return read_published(PROGAN)


def test_a_stylegan_file_has_the_config_that_its_settings_say(stylegan: PublishedFile) -> None:
    assert stylegan.config == StyleGAN1Config(
        resolution=32, z_dim=32, w_dim=32, mapping_dim=32, fmap_base=512, fmap_max=32
    )  # the rest are the published defaults, which are ours


def test_a_progan_file_is_the_second_family(progan: PublishedFile) -> None:
    config = progan.config
    assert (config.family, config.resolution, config.z_dim, config.num_ws) == ("progan", 32, 32, 1)
    assert not (config.styles or config.noise or config.const_input or config.instance_norm or config.blur)
    assert isinstance(load_published(PROGAN).G, ProGANGenerator)


@pytest.mark.parametrize("path", [STYLEGAN, PROGAN])
def test_the_averaged_generator_is_the_one_that_is_loaded(path: Path) -> None:
    file, snapshot = read_published(path), load_published(path)
    for name, value in snapshot.G.state_dict().items():
        assert torch.equal(value, file.G_ema.state[name])
    assert any(not torch.equal(file.G.state[name], value) for name, value in file.G_ema.state.items())
    assert snapshot.D is not None
    assert not any(p.requires_grad for net in (snapshot.G, snapshot.D) for p in net.parameters())


def test_the_number_in_a_training_snapshot_is_its_kimg(tmp_path: Path) -> None:
    path = tmp_path / "network-snapshot-010526.pkl"
    shutil.copy(PROGAN, path)
    assert load_published(path).kimg == 10526
    assert load_published(PROGAN).kimg == 0


@given(st.integers(0, 8), st.floats(0, 1, exclude_max=True))
def test_growth_and_level_of_detail_say_the_same(level: int, fraction: float) -> None:
    lod = min(level + fraction, 8.0)
    stage = stage_of(1024, lod)
    resolution, alpha = stage.resolution, stage.alpha
    assert 4 <= resolution <= 1024
    assert 0 < alpha <= 1
    assert 8 - (math.log2(resolution) - 2) + 1 - alpha == pytest.approx(lod)


@pytest.mark.parametrize("lod", [-0.5, 8.5, math.nan, math.inf])
def test_there_is_no_stage_below_4x4_or_above_full_size(lod: float) -> None:
    with pytest.raises(UserError, match="level of detail"):
        stage_of(1024, lod)


def test_a_half_grown_network_draws_as_far_as_it_has_grown() -> None:
    settings = TINY | {"resolution": 16}
    found = translate("G_style", settings, stylegan_variables(settings, lod=1.25))
    assert found.stage == Stage(8, 0.75)


def test_a_conditional_generator_embeds_its_classes() -> None:
    settings = TINY | {"label_size": 3}
    variables = stylegan_variables(settings)
    found = translate("G_style", settings, variables)
    net = built(found)
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    x = np.concatenate([z.numpy(), variables["G_mapping/LabelConcat/weight"]], axis=1)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)
    for index, fan_in in enumerate((10, 4)):
        x = x @ (variables[f"G_mapping/Dense{index}/weight"] * math.sqrt(2 / fan_in) * 0.01)
        x += variables[f"G_mapping/Dense{index}/bias"] * 0.01
        x = np.where(x > 0, x, 0.2 * x)
    torch.testing.assert_close(net.mapping(z, torch.arange(3)), torch.from_numpy(x))


@pytest.mark.parametrize(("choice", "turned"), [(True, True), (False, False), ("auto", False)])
def test_kernels_are_turned_where_upsampling_was_fused(choice: Any, turned: bool) -> None:
    variables = stylegan_variables(TINY)
    weight = translate("G_style", TINY | {"fused_scale": choice}, variables).state["synthesis.blocks.8.0.weight"]
    published = torch.from_numpy(variables["G_synthesis/8x8/Conv0_up/weight"]).permute(3, 2, 0, 1)
    assert torch.equal(weight, published.flip(2, 3) if turned else published)


def test_settings_that_do_not_change_the_network_are_ignored() -> None:
    other = {"structure": "auto", "randomize_noise": True, "dtype": "float32", "style_mixing_prob": None}
    variables = stylegan_variables(TINY)
    assert translate("G_style", TINY | other, variables).config == translate("G_style", TINY, variables).config


@pytest.mark.parametrize(
    ("function", "changes", "variables", "reason"),
    [
        ("G_main", {"synthesis_func": "G_synthesis_stylegan_revised"}, {}, "a StyleGAN2 that grows"),
        ("D_stylegan", {}, {}, "a StyleGAN2 that grows"),
        ("G_main", {"label_size": 3}, {}, "with classes"),
        ("G_main", {"architecture": "tower"}, {}, "skip, resnet or orig, got 'tower'"),
        ("G_main", {}, {}, "mod_weight is missing"),
        ("D_stylegan2", {"fmap_min": 8}, {}, "fmap_min"),
        ("G_something", {}, {}, "a network 'G_something'; this project opens"),
        ("G_style", {"use_wscale": False}, {}, "use_wscale"),
        ("G_style", {"fmap_decay": 0.5}, {}, "fmap_decay"),
        ("G_style", {"resolution": "32"}, {}, "resolution"),
        ("G_style", {"resolution": 12}, {}, "resolution .* got 12"),
        ("G_style", {"latent_size": 0}, {}, "latent_size"),
        ("G_style", {"fmap_max": 1 << 40}, {}, "fmap_max"),
        ("G_style", {"mapping_layers": 1 << 19}, {}, "G_mapping/Dense2/weight is missing"),
        ("G_style", {"nonlinearity": "selu"}, {}, "nonlinearity"),
        ("G_style", {"blur_filter": "121"}, {}, "blur_filter"),
        ("G_paper", {"fused_scale": "auto"}, {}, "fused_scale"),
        ("G_style", {"fused_scale": "yes"}, {}, "fused_scale"),
        ("G_style", {"fmap_max": 5}, {}, "contradict each other"),
        ("G_style", {}, {"dlatent_avg": None}, "dlatent_avg is missing"),
        ("G_style", {}, {"G_synthesis/8x8/Attention/weight": np.zeros(3)}, "Attention/weight is unknown"),
        ("G_style", {}, {"G_synthesis/8x8/Conv1/bias": np.zeros(9)}, "contradict each other"),
        ("G_style", {}, {"G_synthesis/8x8/Conv1/weight": np.zeros(9)}, "another shape"),
        ("G_style", {}, {"lod": np.float32(-1)}, "level of detail"),
        ("D_basic", {}, {}, "FromRGB_lod1/weight is missing"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(
    function: str, changes: dict[str, Any], variables: dict[str, Any], reason: str
) -> None:
    every = {k: v for k, v in (stylegan_variables(TINY) | variables).items() if v is not None}
    with pytest.raises(UserError, match=reason):
        built(translate(function, TINY | changes, every))


SETTINGS = sorted(TINY.keys() | {"use_wscale", "fmap_decay", "fused_scale", "blur_filter", "nonlinearity", "use_styles",
                                  "use_noise", "const_input_layer", "mapping_lrmul", "pixelnorm_epsilon"})  # fmt: skip
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.floats()), st.just({}))


@given(function=st.sampled_from(["G_style", "G_paper", "D_basic", "D_paper", "G_main", "D_stylegan2"]),
       changes=st.dictionaries(st.sampled_from(SETTINGS), VALUES, max_size=3))  # fmt: skip
def test_absurd_settings_give_a_network_or_a_user_error(function: str, changes: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        built(translate(function, TINY | changes, stylegan_variables(TINY)))


@pytest.mark.parametrize(
    "content",
    [[], None, 7, [1, 2, 3], ({"a": 1},) * 3, [Record("Network")] * 3, [Record("Network", {"variables": 5})] * 3],
)
def test_pickles_of_something_else_are_refused(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylegan.checkpoints.tensorflow.read_pickle", lambda path: content)
    with pytest.raises(UserError, match=r"other\.pkl"):
        read_published(tmp_path / "other.pkl")


def test_networks_in_another_order_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G, D, G_ema = read_pickle(PROGAN)
    monkeypatch.setattr("stylegan.checkpoints.tensorflow.read_pickle", lambda path: (D, G, G_ema))
    with pytest.raises(UserError, match="generator, a discriminator"):
        read_published(tmp_path / "other.pkl")


def test_a_discriminator_of_another_build_cannot_come_along(stylegan: PublishedFile, progan: PublishedFile) -> None:
    with pytest.raises(UserError, match="family"):
        _ = PublishedFile(stylegan.G, progan.D, stylegan.G_ema).config


def test_every_weight_of_the_file_is_used(stylegan: PublishedFile) -> None:
    for network, build in ((stylegan.G_ema, build_generator), (stylegan.D, build_discriminator)):
        assert network.state.keys() == build(network.config).state_dict().keys()
