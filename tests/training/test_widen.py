"""A wider network begins as the narrower one it is made from, and everything in it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stylegan.checkpoints.snapshot import save_snapshot
from stylegan.networks.stylegan1 import StyleGAN1Config
from training.state import TrainState, fresh_state
from training.transfer import transfer_weights, wider

CPU = torch.device("cpu")


@pytest.fixture
def grown(tiny, tmp_path):
    """grown(before, after) -> the states of a run and of one that takes its weights, and what was said."""

    def make(before: dict, after: dict) -> tuple[TrainState, TrainState, str]:
        narrow, wide = fresh_state(tiny(seed=1, **before), CPU), fresh_state(tiny(**before | after), CPU)
        for parameter in [*narrow.G_ema.parameters(), *narrow.D.parameters()]:  # the noise and biases are 0 at first
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
        path = tmp_path / "narrow.safetensors"
        save_snapshot(path, narrow.G_ema, narrow.D, config=narrow.G.config, resolution=16, alpha=1.0, kimg=1.0, data="x")
        return narrow, wide, transfer_weights(str(path), wide)

    return make


WIDER = [
    pytest.param({}, {"model__fmap_base": 256, "model__fmap_max": 16}, id="at 16x16"),
    pytest.param({}, {"model__fmap_base": 384, "model__fmap_max": 24}, id="everywhere"),
    pytest.param({"model__const_input": False}, {"model__fmap_max": 24}, id="from a dense layer"),
    pytest.param({"data__cond": True}, {"model__fmap_max": 20, "model__fmap_base": 320}, id="with classes"),
    pytest.param({"model__styles": False, "model__noise": False}, {"model__fmap_base": 256}, id="traditional"),
]


@pytest.mark.parametrize("before, after", WIDER)
def test_pictures_and_scores_stay_what_they_were(grown, before, after) -> None:
    # Without the minibatch deviation, which is an average over all maps.
    narrow, wide, told = grown(before | {"model__mbstd_group": 1}, after)
    assert "widened" in told and "not:" not in told
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    c = torch.arange(4) % 3 if narrow.G.config.num_classes else None
    with torch.no_grad():
        pictures = narrow.G_ema(z, c)
        for G in (wide.G, wide.G_ema):
            assert torch.allclose(G(z, c), pictures, atol=1e-4)
        assert torch.allclose(wide.D(pictures, c), narrow.D(pictures, c), atol=1e-4)


def test_the_minibatch_deviation_stays_where_it_was(grown) -> None:
    """With 16x16 wider and 4x4 as wide as before, it is an average over the same maps."""
    narrow, wide, _ = grown({}, {"model__fmap_base": 256})
    pictures = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(wide.D(pictures), narrow.D(pictures), atol=1e-4)
    narrow, wide, _ = grown({}, {"model__fmap_max": 24})
    statistic = narrow.D.head.conv.weight[:, 16] * (25 / 17) ** 0.5  # its place is the last, and the fan-in larger
    assert torch.allclose(wide.D.head.conv.weight[:16, 24], statistic)


def test_new_maps_learn(grown) -> None:
    """What leads into new maps starts to move as soon as somebody looks at them: after the first step."""
    narrow, wide, _ = grown({}, {"model__fmap_base": 256})
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    new = slice(narrow.G.config.nf(16), None)
    layer = wide.G.synthesis.blocks["16"][0].weight
    moved = []
    optimizer = torch.optim.SGD(wide.G.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        wide.G(z).square().mean().backward()
        moved.append(layer.grad[new].abs().max().item())
        optimizer.step()
    assert moved[0] == 0 < moved[1]


def test_wider_is_more_maps_and_nowhere_fewer() -> None:
    narrow = StyleGAN1Config(resolution=64, fmap_base=4096, fmap_max=128)
    assert wider(narrow, replace(narrow, fmap_base=8192))
    assert wider(narrow, replace(narrow, resolution=128, fmap_max=256))
    assert wider(replace(narrow, resolution=128), replace(narrow, fmap_max=256))
    assert not wider(narrow, narrow)
    assert not wider(narrow, replace(narrow, fmap_base=8192, fmap_max=64))
    assert not wider(replace(narrow, pixel_norm=True), replace(narrow, fmap_max=256, pixel_norm=True))
    assert not wider(replace(narrow, resolution=32), replace(narrow, fmap_base=8192, resolution=32))
