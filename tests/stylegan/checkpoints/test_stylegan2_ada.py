"""Networks of StyleGAN2-ADA are read without running their code, and ours compute what the published ones do.

The data come from the published code with random weights. Its source in the file is one that raises. Pictures keep
every third pixel of every third row.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan.checkpoints.conversion import convert
from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.checkpoints.stylegan2_ada import (
    DISCRIMINATOR,
    GENERATOR,
    Parts,
    _snapshot,
    config_of,
    fmaps,
    state_of,
)
from stylegan.checkpoints.unpickle import Array, Record, parse_pickle, read_pickle
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan2 import StyleGAN2Config
from torch_utils.errors import UserError

DATA = Path(__file__).parents[2] / "data"
FILE = DATA / "stylegan2_r32.pkl"
R32 = StyleGAN2Config(resolution=32, z_dim=32, w_dim=32, mapping_dim=32, fmap_base=512, fmap_max=32)
CLAMPED = StyleGAN2Config(resolution=32, z_dim=24, w_dim=24, mapping_dim=24, mapping_layers=2, fmap_base=256,
                          fmap_max=24, conv_clamp=2.0, architecture="resnet", d_architecture="skip")  # fmt: skip
TOLERANCE = 1e-5  # of the largest value: what float32 leaves of two orders of summation


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def agrees(ours: torch.Tensor, expected: torch.Tensor, largest: float | None = None) -> None:
    error = (ours - expected).abs().max().item()
    assert ours.shape == expected.shape
    assert error <= TOLERANCE * (largest or expected.abs().max().item())


# The same results


def test_a_file_is_opened_converted_and_read_back(tmp_path: Path) -> None:
    found = open_snapshot(FILE)
    assert found.config == R32 and found.stage == R32.full and found.D is not None and found.kimg == 0
    made = convert(FILE, tmp_path / "ours.safetensors", with_d=True)
    assert made.difference == 0 and made.score is not None
    assert load_snapshot(tmp_path / "ours.safetensors").fingerprint == found.fingerprint


@torch.inference_mode()
def test_images_and_scores_are_those_of_the_published_network() -> None:
    data, content = arrays("stylegan2_r32"), read_pickle(FILE)
    found = open_snapshot(FILE)
    nets = {"G": build_generator(R32), "G_ema": found.G}
    nets["G"].load_state_dict(state_of(Parts(content["G"]).tensors, GENERATOR))
    assert found.D is not None
    for key in [key for key in data if key.startswith("out/")]:
        _, name, what = key.split("/")
        if name == "D":
            first = int((re.findall(r"first(\d)", what) or [8])[0])
            agrees(found.D(data["in/images"][:first])[:, None], data[key])
            continue
        psi, cutoff, mode = (re.search(p, what) for p in (r"psi([\d.]+)", r"cut(\d)", r"images_(const|none)"))
        how = {"psi": float(psi[1]) if psi else 1.0, "cutoff": int(cutoff[1]) if cutoff else None}
        ws = nets[name].latents(data["in/z"], **how)
        agrees(nets[name].synthesis(ws, noise=mode[1])[:, :, ::3, ::3] if mode else ws, data[key])
    assert sum(key.startswith("out/") for key in data) == 12


@torch.inference_mode()
def test_other_architectures_and_a_clamp() -> None:
    data = arrays("stylegan2_clamp")
    G, D = build_generator(CLAMPED), build_discriminator(CLAMPED)
    for name, net, names in (("G_ema", G, GENERATOR), ("D", D, DISCRIMINATOR)):
        prefix = f"var/{name}/"
        own = {key.removeprefix(prefix): value.numpy() for key, value in data.items() if key.startswith(prefix)}
        net.load_state_dict(state_of(own, names))
    agrees(G(data["in/z"])[:, :, ::3, ::3], data["out/G_ema/images_const_psi1"])
    agrees(G(data["in/z"], psi=0.7, cutoff=4)[:, :, ::3, ::3], data["out/G_ema/images_const_psi0.7_cut4"])
    agrees(D(data["in/images"])[:, None], data["out/D/logits_first4"])


def generator_loss(G: Any, D: Any, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"Loss.G.loss": F.softplus(-D(G(data["in/z"])))}


def path_length(G: Any, D: Any, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ws = G.latents(data["in/z"])
    total = (G.synthesis(ws) * data["in/pl_noise_unit"] / 32).sum()
    (grad,) = torch.autograd.grad(total, ws, create_graph=True)
    lengths = grad.square().sum(dim=2).mean(dim=1).sqrt()
    mean = 0.01 * lengths.mean()
    agrees(mean.detach(), data["loss/Greg_gain1/pl_mean_after"])
    penalty = (lengths - mean).square()
    return {"Loss.pl_penalty": penalty, "Loss.G.reg": 2 * penalty}


def discriminator_loss(G: Any, D: Any, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"both": F.softplus(D(G(data["in/z"]))) + F.softplus(-D(data["in/images"][:4]))}


def r1(G: Any, D: Any, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    images = data["in/images"][:4].clone().requires_grad_()
    (grad,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    penalty = grad.square().sum(dim=(1, 2, 3))
    return {"Loss.r1_penalty": penalty, "Loss.D.reg": 5 * penalty}


@pytest.mark.parametrize("phase, loss", [
    ("Gmain", generator_loss), ("Greg", path_length), ("Dmain", discriminator_loss), ("Dreg", r1),
])  # fmt: skip
def test_gradients_are_those_of_the_published_training(phase: str, loss: Callable[..., Any]) -> None:
    """Of all weights: their norms, and some in full. Small ones are compared with the largest, as they are sums of
    larger numbers that cancel out.
    """
    data, content, start = arrays("stylegan2_r32"), read_pickle(FILE), f"loss/{phase}_gain1/"
    nets = {"G": build_generator(R32), "D": build_discriminator(R32)}
    for name, names in (("G", GENERATOR), ("D", DISCRIMINATOR)):
        nets[name].load_state_dict(state_of(Parts(content[name]).tensors, names))
    values = loss(nets["G"], nets["D"], data)
    for what, value in values.items():
        if what != "both":
            agrees(value.detach(), data[f"{start}report/{what}"].flatten())
    list(values.values())[-1].mean().backward()
    grads = {f"{net}.{name}": p.grad for net in nets for name, p in nets[net].named_parameters()}
    norms = {key.removeprefix(f"{start}gradnorm/"): value for key, value in data.items() if "gradnorm" in key and
             key.startswith(start)}  # fmt: skip
    largest = max(norms.values()).item()
    for name, norm in norms.items():
        net, own = name.split(".", 1)
        names = GENERATOR if net == "G" else DISCRIMINATOR
        (ours,) = state_of({own: np.zeros((1, 1))}, names)
        grad = grads[f"{net}.{ours}"]
        assert abs((0.0 if grad is None else grad.double().norm().item()) - norm.item()) <= TOLERANCE * largest, name
        if (whole := data.get(f"{start}grad/{name}")) is not None and grad is not None:
            agrees(grad.reshape(whole.shape), whole, largest)
    assert len(norms) == {"Gmain": 91, "Greg": 68, "Dmain": 91, "Dreg": 23}[phase]


# Other files


def changed(part: str, net: str = "G_ema", **attributes: Any) -> dict[str, Any]:
    """The content of the file with other attributes of a part."""
    content = copy.deepcopy(read_pickle(FILE))
    record = content[net]
    for name in filter(None, part.split(".")):
        record = record.state["_modules"][name]
    record.state.update(attributes)
    return content


def opened(content: dict[str, Any]) -> Any:
    return _snapshot(content, Path("network-snapshot-000123.pkl"), "cpu")


def test_a_file_may_have_only_the_averaged_generator() -> None:
    content = read_pickle(FILE)
    found = opened({"G_ema": content["G_ema"], "augment_pipe": None})
    assert found.D is None and found.kimg == 123 and found.config == R32


def test_filters_that_no_part_uses_do_not_count() -> None:
    content = changed("", "G_ema")
    unused = content["G_ema"].state["_modules"]["synthesis"].state["_modules"]["b4"].state["_modules"]["conv1"]
    unused.state["_buffers"]["resample_filter"] = Array(np.ones((2, 2), np.float32) / 4)
    assert opened(content).config == R32


@pytest.mark.parametrize("part, net, attributes, says", [
    ("", "G_ema", {"img_resolution": 48}, "synthesis.b48.conv1 is missing"),
    ("", "G_ema", {"img_resolution": 64}, "synthesis.b64.* is missing"),
    ("", "G_ema", {"z_dim": "32"}, "setting z_dim is"),
    ("", "G_ema", {"z_dim": 33}, "contradict"),
    ("", "G_ema", {"c_dim": 3}, "generator and discriminator differ in num_classes"),
    ("", "D", {"c_dim": 3, "img_channels": 1}, "differ in channels, num_classes"),
    ("mapping", "G_ema", {"num_layers": 7}, "contradict"),
    ("mapping.fc0", "G_ema", {"bias_gain": float("nan")}, "bias_gain nan"),
    ("mapping.fc0", "G_ema", {"activation": "tanh"}, "activation 'tanh'; known are lrelu, relu"),
    ("synthesis.b32", "G_ema", {"architecture": "orig"}, "b4 has architecture 'skip', and others 'orig'"),
    ("synthesis.b32.conv1", "G_ema", {"conv_clamp": -1}, "conv_clamp -1"),
    ("synthesis.b8.conv0", "G_ema", {"conv_clamp": 3}, "synthesis.b8.conv0 has conv_clamp 3, and others None"),
    ("synthesis.b8.conv0", "G_ema", {"activation": "relu"}, "conv0 has activation 'relu', and others 'lrelu'"),
    ("synthesis.b8.conv0", "G_ema", {"activation": [[]] * 9}, r"conv0 has activation \[\[\]"),
    ("mapping.fc1", "G_ema", {"activation": "relu"}, "fc1 has activation 'relu', and others 'lrelu'"),
    ("b4.fc", "D", {"activation": "relu"}, "b4.fc has activation 'relu', and others 'lrelu'"),
    ("b8", "D", {"architecture": "skip"}, "b8 has architecture 'skip', and others 'resnet'"),
    ("synthesis.b8.conv0", "G_ema", {"_buffers": {"resample_filter": Array(np.ones((2, 2), np.float32) / 4)}},
     "several resampling filters"),
    ("b4.mbstd", "D", {"num_channels": 2}, "contradict"),
    ("synthesis.b4", "G_ema", {"_buffers": {}}, "contradict|noise|const"),
    ("synthesis.b4", "G_ema", {"_parameters": {"const": Array()}}, "const is no tensor"),
    ("synthesis.b4", "G_ema", {"_modules": {"conv1": 3}}, "conv1 is no part of a network"),
    ("synthesis", "G_ema", {"_modules": {"input": Record("SynthesisInput", {})}}, "a network of StyleGAN3"),
    ("synthesis", "G_ema", {"_modules": {}}, "a project that descends from StyleGAN2-ADA"),
    ("", "G_ema", {"_modules": {"\x1b[2J": Record("x", {})}}, "its parts have no names"),
])  # fmt: skip
def test_what_cannot_be_read_is_one_line(part: str, net: str, attributes: dict[str, Any], says: str) -> None:
    if attributes == {"_buffers": {}}:
        opened(changed(part, net, **attributes))  # only a filter was there, of which others have a copy
        return
    with pytest.raises(UserError, match=says) as caught:
        opened(changed(part, net, **attributes))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_parts_without_end_are_refused() -> None:
    endless = Record("x", {"_modules": {}})
    endless.state["_modules"] = {"a": endless, "b": endless}
    with pytest.raises(UserError, match="not those of a network"):
        Parts(endless)
    many = {f"w{k}": Array(np.broadcast_to(np.float32(0), (1 << 30,))) for k in range(40)}
    with pytest.raises(UserError, match="STYLEGAN_LIMITS"):
        Parts(Record("x", {"_buffers": many}))


@pytest.mark.parametrize("tensor, fits", [
    (torch.arange(6.0).view(2, 3), True), (torch.arange(6.0).view(2, 3).t(), True),
    (torch.arange(6.0)[2:5], True), (torch.zeros(()), True), (torch.zeros(0, 3), True),
    (torch.arange(4), True), (torch.ones(3, dtype=torch.float16), True), (torch.tensor([True]), True),
    (torch.zeros(1).expand(3, 5), False),
])  # fmt: skip
def test_tensors_are_read_as_they_are_stored(tensor: torch.Tensor, fits: bool) -> None:
    """But those that repeat their numbers are refused, as a few bytes would make a large one."""
    if fits:
        np.testing.assert_array_equal(parse_pickle(pickle.dumps([tensor], protocol=4))[0].data, tensor.numpy())
    else:
        with pytest.raises(UserError, match="not a complete network file"):
            parse_pickle(pickle.dumps([tensor], protocol=4))


def test_sets_are_lists() -> None:
    assert parse_pickle(pickle.dumps({"a": set(), "b": {3}}, protocol=4)) == {"a": [], "b": [3]}
    assert parse_pickle(pickle.dumps({"a": set(), "b": {3}}, protocol=2).replace(b"__builtin__", b"builtins")) == {
        "a": [], "b": [3],
    }  # fmt: skip


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    whole = FILE.read_bytes()
    for cut in (20, 700, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pkl").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"cut\.pkl: it is not a complete network file") as caught:
            open_snapshot(tmp_path / "cut.pkl")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base, most", [(512, 32), (32768, 512), (16384, 512), (100, 7), (1000, 1000)])
def test_feature_maps_follow_from_shapes(base: int, most: int) -> None:
    cfg = StyleGAN2Config(resolution=256, fmap_base=base, fmap_max=most)
    found = StyleGAN2Config(resolution=256, **fmaps([(res, cfg.nf(res)) for res in cfg.resolutions]))
    assert [found.nf(res) for res in cfg.resolutions] == [cfg.nf(res) for res in cfg.resolutions]
    with pytest.raises(UserError, match="numbers of feature maps"):
        fmaps([(4, 8), (8, 16), (16, 8)])


def test_conditional_networks_are_described_by_their_parts() -> None:
    content = changed("", "G_ema", c_dim=3)
    D = content["D"]
    D.state["c_dim"] = 3
    D.state["_modules"]["b4"].state["cmap_dim"] = 32
    layer = Record("FullyConnectedLayer", {"bias_gain": 0.01})
    D.state["_modules"]["mapping"] = Record("MappingNetwork", {"num_layers": 2, "_modules": {"fc0": layer}})
    found = config_of(Parts(content["G_ema"]), Parts(D))
    assert (found.num_classes, found.cmap_dim, found.cmap_layers) == (3, None, 2)
    layer.state["bias_gain"] = 0.1
    with pytest.raises(UserError, match="learning rates"):
        config_of(Parts(content["G_ema"]), Parts(D))
    D.state["_modules"]["b4"].state["cmap_dim"] = 0
    with pytest.raises(UserError, match="ignores the classes"):
        config_of(Parts(content["G_ema"]), Parts(D))
