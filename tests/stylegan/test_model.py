"""What `stylegan.load` returns: a model that generates, mixes, moves and projects, at the stage it has grown to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import stylegan
from stylegan.editing.directions import Directions, in_w, moved, moved_ws
from stylegan.latents.latents import Latents
from stylegan.model import Model
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.sampling import z_for_seeds
from stylegan.networks.stylegan1 import StyleGAN1Config
from tests.stylegan.tiny import TINY, trained
from torch_utils.errors import UserError
from torch_utils.images import to_pil, to_uint8


def model(cfg: StyleGAN1Config = TINY, stage: Stage | None = None) -> Model:
    return Model(trained(cfg, stage=stage))


def direction(seed: int = 0) -> Directions:
    torch.manual_seed(seed)
    return in_w(torch.randn(1, 8), ["smile"], range(6), "at random", torch.eye(8, dtype=torch.float64))


def pixels(found: list) -> list[bytes]:
    return [image.tobytes() for image in found]


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_generate_returns_pil_images(channels, mode):
    net = model(replace(TINY, channels=channels, base=(4, 6)))
    first, second = net.generate([0, 1])
    assert (first.mode, first.size) == (mode, (24, 16))
    assert first.tobytes() != second.tobytes()
    assert net.generate([1])[0].tobytes() == second.tobytes()
    assert net.generate([1], psi=0.7)[0].tobytes() == second.tobytes()
    assert net.generate([1], psi=0.7, cutoff=0)[0].tobytes() == net.generate([1], psi=1)[0].tobytes()


def test_classes_by_name():
    net = model(replace(TINY, num_classes=3))
    net = Model(replace(net.snapshot, class_names=("cat", "dog")))
    assert net.class_names == ("cat", "dog")
    assert pixels(net.generate([4, 5], c="dog")) == pixels(net.generate([4, 5], c=1))
    assert pixels(net.generate([4, 5], c=["dog", 2])) == pixels(net.generate([4, 5], c=[1, 2]))
    with pytest.raises(UserError, match="c bird: no class has that name"):
        net.generate([4], c="bird")


def test_what_it_generates_is_what_its_renderer_draws():
    net = model()
    drawn = net.snapshot.renderer.render([3, 4], psi=0.5, cutoff=2)
    assert pixels(net.generate([3, 4], psi=0.5, cutoff=2)) == [to_pil(p).tobytes() for p in to_uint8(drawn)]


@pytest.mark.parametrize("cfg", [TINY, replace(TINY, styles=False), ProGANConfig(resolution=16, z_dim=8, fmap_max=16)])
@pytest.mark.parametrize("stage", [Stage(8, 0.4), Stage(4), Stage(16, 0.2)])
def test_a_half_grown_network_is_drawn_at_its_stage(cfg, stage):
    net = model(cfg, stage)
    (image,) = net.generate([5], psi=1.0)
    expected = net.G(z_for_seeds([5], 8), stage=stage)
    assert image.size == cfg.size(stage.resolution)[::-1]
    assert np.abs(to_uint8(expected)[0].astype(int) - np.array(image)).max() <= 1
    ws = net.ws([5], psi=1.0)
    assert pixels(net.generate(ws)) == [image.tobytes()]
    assert pixels(net.generate(Latents(ws, ("a",), ("a",)))) == [image.tobytes()]


def test_layers_of_a_half_grown_network_are_those_of_its_stage():
    net = model(stage=Stage(8, 0.4))
    assert torch.equal(net.mix([3], [4], "coarse"), net.mix([3], [4], "0-3"))
    for use in (lambda: net.mix([3], [4], "0-4"), lambda: net.move([3], direction(), 1.0, "4")):
        with pytest.raises(UserError, match="4 layers at 8x8"):
            use()


def test_classes():
    net = model(replace(TINY, num_classes=3))
    zero, two = net.generate([4, 4], c=[0, 2])
    assert zero.tobytes() != two.tobytes()
    assert net.generate([4], c=2)[0].tobytes() == two.tobytes()
    assert torch.equal(net.mix([4], [5], [], c=2), net.ws([4], c=[2]))
    for wrong in (None, 3, -1):
        with pytest.raises(UserError, match="0 to 2"):
            net.generate([4], c=wrong)
    with pytest.raises(UserError, match="unconditional"):
        model().generate([4], c=0)


def test_mix_and_generate_take_seeds_and_ws_alike():
    net = model()
    ws = net.ws([3, 4])
    assert torch.equal(ws, net.snapshot.renderer.map(z_for_seeds([3, 4], 8)))
    assert net.ws(ws) is ws and torch.equal(net.ws(torch.tensor([3, 4])), ws)
    assert pixels(net.generate(ws)) == pixels(net.generate([3, 4]))
    assert torch.equal(net.mix([3, 4], [7], "coarse"), net.mix(ws, net.ws([7]), [0, 1, 2, 3]))
    assert torch.equal(net.mix([3, 4], [7], []), ws)
    with pytest.raises(UserError, match="6 layers"):
        net.mix([3], [4], "0-6")


def test_move_takes_seeds_ws_and_latents_alike():
    net, way = model(), direction()
    ws = net.ws([1, 2])
    start = Latents(ws, ("a", "b"), ("a", "b"))
    assert torch.equal(net.move(ws, way, 2.0), moved_ws(ws, way, 2.0))
    assert torch.equal(net.move([1, 2], way, 2.0), net.move(ws, way, 2.0))
    assert torch.equal(net.move([1, 2], way, 2.0, psi=0.3), moved_ws(net.ws([1, 2], psi=0.3), way, 2.0))
    found = net.move(start, way, 2.0, layers="coarse")
    assert torch.equal(found.ws, moved(start, way, 2.0, range(4)).ws) and torch.equal(found.ws[:, 4:], ws[:, 4:])
    assert found.names == ("a+2smile", "b+2smile") and net.move([1, 2, 3], way, 0.0).shape == (3, 6, 8)
    channel = [torch.zeros(1, size) for size in TINY.style_dims()]
    channel[2][0, 5] = 1.0
    edit = replace(way, vectors=torch.zeros(1, 1, 8), styles=tuple(channel), layers=((2,),))
    edited = net.generate(net.move(start, edit, 3.0))
    assert len(edited) == 2 and edited[0].tobytes() != net.generate(start)[0].tobytes()
    assert net.generate(start)[1].tobytes() == net.generate(start.ws)[1].tobytes()
    with pytest.raises(UserError, match="edits styles"):
        net.move([1, 2], edit, 3.0)


@pytest.mark.parametrize("cfg", [ProGANConfig(resolution=16, z_dim=8, fmap_max=16), replace(TINY, styles=False)])
def test_a_network_without_styles_has_nothing_to_mix(cfg):
    net = model(cfg)
    with pytest.raises(UserError, match="no styles"):
        net.mix([3], [4], "coarse")


def test_without_a_w_nothing_is_truncated_or_projected(tmp_path):
    net = model(ProGANConfig(resolution=16, z_dim=8, fmap_max=16))
    assert pixels(net.generate([3])) == pixels(net.generate([3], psi=1))
    net.generate([3])[0].save(tmp_path / "eva.png")
    for use in (lambda: net.generate([3], psi=0.7), lambda: net.project(tmp_path / "eva.png", num_steps=2)):
        with pytest.raises(UserError, match="ProGAN has no w"):
            use()


@pytest.mark.parametrize("stage", [Stage(16), Stage(8, 0.4)])
def test_what_it_projects_has_the_size_that_it_draws(stage, tmp_path):
    net = model(stage=stage)
    net.generate([3])[0].save(tmp_path / "eva.png")
    latents = net.project(tmp_path / "eva.png", num_steps=2)
    assert [tuple(m.shape[2:]) for m in latents.noise] == TINY.noise_shapes(stage.resolution)
    assert net.generate(latents)[0].size == (stage.resolution, stage.resolution)
    assert net.project(str(tmp_path / "eva.png"), "w+", num_steps=2).plus


def latents(**changes: object) -> Latents:
    return replace(Latents(torch.zeros(1, 6, 8), ("a",), ("a",)), **changes)  # type: ignore[arg-type]


NET, COND = model(), model(replace(TINY, num_classes=3))
WS = torch.zeros(2, 6, 8)
WRONG = {
    "nothing": (lambda: NET.generate([]), "give at least one"),
    "no ws": (lambda: NET.generate(WS[:0]), "give at least one"),
    "no latents": (lambda: NET.generate(latents()[:0]), "give at least one"),
    "nothing to move": (lambda: NET.move([], direction(), 1.0), "give at least one"),
    "a seed that is none": (lambda: NET.generate([0.7]), "a seed must be an integer"),
    "below 0": (lambda: NET.ws([-1]), "a seed must be an integer"),
    "18 rows": (lambda: NET.generate(torch.zeros(1, 18, 8)), r"ws must be \[N, 6, 8\]"),
    "latents of 18 rows": (lambda: NET.generate(latents(ws=torch.zeros(1, 18, 8))), r"ws must be \[N, 6, 8\]"),
    "latents of nan": (lambda: NET.generate(latents(ws=WS[:1] / 0)), "not finite"),
    "latents of two lengths": (lambda: NET.generate(latents(names=("a", "b"))), "different lengths"),
    "noise of another size": (lambda: NET.generate(latents(noise=(torch.zeros(1, 1, 5, 5),))), "noise maps"),
    "styles of another size": (lambda: NET.move(latents(styles=(torch.zeros(1, 3),)), direction(), 1.0), "styles"),
    "psi of nan": (lambda: NET.generate([0], psi=float("nan")), "psi must be a finite number"),
    "psi as text": (lambda: NET.generate([0], psi="0.7"), "psi must be a finite number, got '0.7'"),
    "psi out of range": (lambda: NET.generate([0], psi=50), "psi must be from -10 to 10"),
    "cutoff out of range": (lambda: NET.generate([0], cutoff=7), "cutoff must be an integer from 0 to 6"),
    "psi of ws": (lambda: NET.generate(WS, psi=0.5), "psi: only for seeds"),
    "class of ws": (lambda: COND.generate(WS, c=99), "c: only for seeds"),
    "both of ws": (lambda: COND.move(WS, direction(), 1.0, psi=0.5, c=1), "psi and c: only for seeds"),
    "class of latents": (lambda: COND.generate(latents(), c=1), "c: only for seeds"),
    "psi of two ws": (lambda: NET.mix(WS, WS, "coarse", psi=0.5), "psi: only for seeds"),
    "classes for each": (lambda: COND.generate([0, 1], c=[0, 1, 2]), "3 classes for 2 images"),
    "class as a fraction": (lambda: COND.generate([0], c=1.5), "classes must be integers"),
    "mixed lengths": (lambda: NET.mix([0, 1], [0, 1, 2], "coarse"), "a has 2 latents and b 3"),
    "mixed latents": (lambda: NET.mix(latents(), [0], "coarse"), "give their .ws"),
    "unknown layers": (lambda: NET.mix([0], [1], ["rough"]), "'rough' is not a layer"),
    "layers as fractions": (lambda: NET.mix([0], [1], [0.5]), "0.5 is not a layer"),
    "layers below 0": (lambda: NET.mix([0], [1], [-1, 2]), "there is no layer -1"),
    "one layer": (lambda: NET.mix([0], [1], 3), "layers must be text"),
    "strength": (lambda: NET.move([0], direction(), float("inf")), "strength must be a finite number"),
    "much strength": (lambda: NET.move([0], direction(), 1e30), "strength must be from -100 to 100"),
    "enormous w": (lambda: NET.generate(torch.full((1, 8), 1e30)), "ws contain numbers up to 1e\\+30"),
    "masked w": (lambda: NET.generate(np.ma.masked_less(np.arange(8.0)[None], 3)), "ws have a mask"),
    "list of latents": (lambda: NET.generate([[0.5] * 8]), "give latents as one array"),  # type: ignore[list-item]
    "no direction": (lambda: NET.move([0], "smile", 1.0), "direction must be Directions"),
    "direction of another network": (
        lambda: NET.move([0], in_w(torch.ones(1, 5), ["a"], [0], "", torch.eye(5, dtype=torch.float64)), 1.0),
        "the direction: directions of"),
    "space": (lambda: NET.project("a.png", space="z"), "space must be 'w' or 'w\\+', got 'z'"),
    "steps": (lambda: NET.project("a.png", num_steps=1), "num_steps must be an integer from 2"),
    "steps as a fraction": (lambda: NET.project("a.png", num_steps=2.5), "num_steps must be an integer"),
    "seed of the search": (lambda: NET.project("a.png", seed=0.5), "seed must be an integer"),
    "no photograph": (lambda: NET.project([]), "there is no photograph"),
    "an image in memory": (lambda: NET.project(to_pil(np.zeros((4, 4, 3), np.uint8))), "photos must be paths"),
    "several classes of one": (lambda: COND.project("a.png", c=[0, 1]), "2 classes for 1 image"),
    "no class": (lambda: COND.project("a.png"), "from 0 to 2 with c"),
    "a class of none": (lambda: NET.project("a.png", c=0), "unconditional"),
    "device": (lambda: stylegan.load("faces64", device="foo"), "Invalid device foo"),
    "device without memory": (lambda: stylegan.load("faces64", device="meta"), "device meta is not available"),
    "no device": (lambda: stylegan.load("faces64", device=None), "Invalid device None"),
    "precision": (lambda: stylegan.load("faces64", precision="fp64"), "precision must be one of fp32, tf32"),
    "where": (lambda: stylegan.load(5), "where must be the path"),
}  # fmt: skip


@pytest.mark.parametrize("use", WRONG)
def test_what_does_not_fit_is_one_line_in_the_words_of_python(use):
    wrong, message = WRONG[use]
    with pytest.raises(UserError, match=message) as raised:
        wrong()
    assert "--" not in str(raised.value) and "\n" not in str(raised.value)


def test_w_and_numpy_arrays_are_taken_as_ws():
    ws = NET.ws([3, 4])
    images = pixels(NET.generate(ws))
    assert pixels(NET.generate(ws[:, 0])) == pixels(NET.generate(ws[:, :1].double().numpy())) == images
    assert pixels(NET.generate(ws[0, 0])) == images[:1] and pixels(NET.generate(3)) == images[:1]
    assert torch.equal(NET.mix(ws.numpy(), ws[:1, 0], "coarse"), NET.mix(ws, ws[:1], "coarse"))
    assert torch.equal(NET.move(ws[:, 0].numpy(), direction(), 1.0), NET.move(ws, direction(), 1.0))
    assert torch.equal(COND.mix(WS, [5], "coarse", psi=0.5, c=2), COND.mix(WS, COND.ws([5], 0.5, c=2), "coarse"))


def test_load_opens_a_model(models: Path):
    half = stylegan.load(models / "half.safetensors")
    assert isinstance(half, stylegan.Model) and half.snapshot.G is half.G
    assert (half.stage, half.kimg, half.data, half.config.resolution) == (Stage(8, 0.4), 5.0, "pictures", 16)
    assert half.D is not None and half.D.config == half.config
    assert half.generate([0])[0].size == (8, 8)


def test_the_public_names_are_there():
    assert {getattr(stylegan, name) for name in stylegan.__all__} == {Directions, Latents, Model, stylegan.load}
    with pytest.raises(AttributeError, match="nothing"):
        stylegan.nothing  # noqa: B018
