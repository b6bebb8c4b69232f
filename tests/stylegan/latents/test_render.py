"""A network together with how its images are rendered: at which stage, how truncated, with which noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, store
from stylegan.cli.main import main
from stylegan.cli.options import about_network
from stylegan.latents.render import View, gather, require_room, stage_of
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.fixture(scope="module")
def half_grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 16 that fades in its 8x8."""
    path = tmp_path_factory.mktemp("models") / "half.safetensors"
    torch.manual_seed(0)
    G = build_generator(TINY)
    G.mapping.w_avg.normal_()
    store(path, Snapshot(G, None, TINY, Stage(8, 0.4), 5.0, "pictures"))
    return path


def test_without_wishes_a_network_draws_as_it_would_itself(half_grown):
    expected = load_snapshot(half_grown).renderer.render([3, 4])
    assert expected.shape == (2, 3, 8, 8)
    assert torch.equal(View.of(load_snapshot(half_grown)).render([3, 4]), expected)


def test_every_wish_reaches_the_network(half_grown):
    view = View.of(load_snapshot(half_grown), psi=0.5, cutoff=2, noise_mode="none", resolution=4)
    expected = Renderer.of(load_snapshot(half_grown).G, Stage(4)).render([3], psi=0.5, cutoff=2, noise="none")
    assert torch.equal(view.render([3]), expected)


@pytest.mark.parametrize("wish, stage", [({}, Stage(8, 0.4)), ({"alpha": 1.0}, Stage(8, 1.0)),
                                         ({"resolution": 4}, Stage(4)), ({"resolution": 8}, Stage(8, 0.4)),
                                         ({"resolution": 4, "alpha": 0.5}, Stage(4, 0.5))])  # fmt: skip
def test_it_is_drawn_at_the_stage_that_the_view_says(half_grown, wish, stage):
    snapshot = load_snapshot(half_grown)
    view = View.of(snapshot, noise_mode="random", **wish)
    assert view.snapshot.stage == view.snapshot.renderer.stage == stage_of(snapshot, **wish) == stage
    assert snapshot.stage == Stage(8, 0.4) and view.snapshot.fingerprint == snapshot.fingerprint
    expected = Renderer.of(snapshot.G, stage).render([3], noise="random")
    assert torch.equal(view.render([3]), expected) and torch.equal(view.draw(gather([3], view)), expected)


def test_a_batch_beyond_the_memory_is_refused_with_what_fits(half_grown, monkeypatch):
    snapshot = load_snapshot(half_grown)
    for searched in (False, True):
        for memory in (2.0**34, 2.0**20):
            monkeypatch.setattr("torch_utils.device.total_memory", lambda memory=memory: memory)
            monkeypatch.setattr("stylegan.latents.render.total_memory", lambda memory=memory: memory)
            with pytest.raises(
                UserError, match=r"^--batch 1000000000 needs .* GiB .*; give at most [\d,]+$"
            ) as refused:
                require_room(snapshot, 10**9, searched)
            most = int(str(refused.value).rpartition(" ")[2].replace(",", ""))
            require_room(snapshot, most, searched)
            with pytest.raises(UserError):
                require_room(snapshot, most + 1, searched)
    monkeypatch.setattr("torch_utils.device.total_memory", lambda: float("inf"))
    monkeypatch.setattr("stylegan.latents.render.total_memory", lambda: float("inf"))
    require_room(snapshot, 10**9)


@pytest.mark.parametrize("command", [
    "generate --seeds 0 --outdir OUT", "mix --rows 0 --cols 1 --outdir OUT", "film --seeds 0,1 --out OUT/a.webp",
    "project --target EYE --outdir OUT", "metrics --metrics msssim4 --outdir OUT", "metrics --rank 0-9 --outdir OUT",
    "directions apply --directions NONE --seeds 0 --outdir OUT",
])  # fmt: skip
def test_every_command_that_works_in_batches_refuses_one_beyond_the_memory(command, half_grown, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "eye.png")
    places = {"OUT": str(tmp_path / "out"), "EYE": str(tmp_path / "eye.png"), "NONE": str(half_grown)}
    words = [
        part.replace("OUT", places["OUT"]) if "OUT" in part else places.get(part, part) for part in command.split()
    ]
    result = CliRunner().invoke(
        main, [*words, "--network", str(half_grown), "--device", "cpu", "--batch", "1000000000"]
    )
    assert result.exit_code == 2 and "Error: --batch 1000000000 needs" in result.output, result.output
    assert not (tmp_path / "out").exists()


def test_what_the_network_cannot_do_is_refused(half_grown):
    for wish, says in (
        ({"resolution": 16}, "--resolution must be one of 4, 8 here, got 16"),
        ({"alpha": 1.5}, "--alpha must be from 0 to 1, got 1.5"),
        ({"cutoff": 7}, "--trunc-cutoff must be from 0 to 6.*got 7"),
        ({"psi": float("nan")}, "--trunc must be from -10 to 10"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            View.of(load_snapshot(half_grown), **wish)


def test_a_network_without_w_is_not_truncated(models):
    snapshot = load_snapshot(models / "progan.safetensors")
    assert View.of(snapshot).psi == View.of(snapshot, psi=1).psi == 1
    with pytest.raises(UserError, match="ProGAN has no w, because .*; leave out the truncation of 0.7"):
        View.of(snapshot, psi=0.7)


def test_the_words_tell_of_the_network(half_grown):
    view = View.of(load_snapshot(half_grown), cutoff=2)
    network, images, truncation = about_network("half.safetensors", view, 7)
    assert "half.safetensors: stylegan" in network and "5 kimg of pictures" in network
    assert images.endswith("7 of 8x8, RGB, faded in to 0.40")
    assert truncation.endswith("0.7 in 2 layers")
