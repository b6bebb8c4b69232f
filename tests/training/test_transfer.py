"""What fits of another network is taken, the rest is listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import stylegan
from stylegan.checkpoints.snapshot import save_snapshot
from torch_utils.errors import UserError
from training.state import TrainState, fresh_state
from training.transfer import CENTRE, transfer_weights, width_of

CPU = torch.device("cpu")


def snapshot(state: TrainState, path: Path, with_d: bool = True) -> str:
    save_snapshot(path, state.G_ema, state.D if with_d else None, config=state.G.config, resolution=16, alpha=1.0,
                  kimg=1.0, data="x")  # fmt: skip
    return str(path)


def same(a: torch.nn.Module, b: torch.nn.Module) -> set[str]:
    """Names of the tensors that two networks share by value."""
    others = b.state_dict()
    return {
        name for name, t in a.state_dict().items() if others[name].shape == t.shape and torch.equal(t, others[name])
    }


def test_the_same_network_is_taken_whole(tiny, tmp_path) -> None:
    origin, target = fresh_state(tiny(seed=1), CPU), fresh_state(tiny(), CPU)
    origin.G_ema.mapping.w_avg.fill_(0.5)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors"), target)
    assert same(target.G, origin.G_ema) == same(target.G_ema, origin.G_ema) == set(origin.G.state_dict())
    assert same(target.D, origin.D) == set(origin.D.state_dict())
    assert "not:" not in told
    assert all(p.requires_grad for p in [*target.G.parameters(), *target.D.parameters()])


@pytest.mark.parametrize("ours, theirs", [(16, 8), (8, 16)])
def test_another_resolution_keeps_what_both_have(tiny, tmp_path, ours: int, theirs: int) -> None:
    def state(resolution: int, seed: int) -> TrainState:
        return fresh_state(tiny(seed=seed, model__resolution=resolution, growth__final=resolution), CPU)

    origin, target = state(theirs, 1), state(ours, 0)
    fresh = target.G.synthesis.blocks[str(ours)][0].weight.clone()
    path = tmp_path / "a.safetensors"
    save_snapshot(path, origin.G_ema, origin.D, config=origin.G.config, resolution=theirs, alpha=1.0, kimg=1.0, data="x")
    told = transfer_weights(str(path), target)
    assert torch.equal(target.G.synthesis.blocks["8"][0].weight, origin.G.synthesis.blocks["8"][0].weight)
    assert torch.equal(target.D.blocks["8"].conv1.weight, origin.D.blocks["8"].conv1.weight)
    if ours > theirs:
        assert "synthesis.blocks.16.0.weight (new)" in told
        assert torch.equal(target.G.synthesis.blocks["16"][0].weight, fresh)
    else:
        assert "synthesis.blocks.16.0.weight (only there)" in told


def test_another_number_of_classes_keeps_the_rest(tiny, tmp_path) -> None:
    origin = fresh_state(tiny(seed=1, model__num_classes=5), CPU)
    for net in (origin.G, origin.G_ema):
        net.mapping.w_avg.copy_(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)))
    target = fresh_state(tiny(data__cond=True), CPU)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors"), target)
    assert "mapping.embed ((5, 16) there, (3, 16) here)" in told
    assert "head.dense1.weight ((5, " in told
    left = set(target.G.state_dict()) - same(target.G, origin.G)
    assert left == {"mapping.embed", "mapping.w_avg"}
    average = origin.G.mapping.w_avg.mean(dim=0)
    assert average.any() and torch.equal(target.G.mapping.w_avg, average.expand(3, -1))


def test_a_number_of_feature_maps_that_is_no_more_everywhere_is_not_taken(tiny, tmp_path) -> None:
    origin, target = fresh_state(tiny(seed=1), CPU), fresh_state(tiny(model__fmap_base=256, model__fmap_max=8), CPU)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors"), target)
    assert "widened" not in told
    assert "synthesis.blocks.8.0.weight ((16, 16, 3, 3) there, (8, 8, 3, 3) here)" in told
    assert told.count("more would fit with --fmap-base 128 --fmap-max 16") == 2


@pytest.mark.parametrize("other", [
    {"model__base": (4, 6)}, {"model__w_dim": 24}, {"model__channels": 4}, {"data__cond": True},
    {"model__mbstd_features": 2}, {"model__mapping_dim": 20},
], ids=str)  # fmt: skip
def test_a_wider_network_that_differs_otherwise_takes_what_differs_in_its_feature_maps_alone(
    tiny, tmp_path, other: dict
) -> None:
    origin = fresh_state(tiny(seed=1), CPU)
    target, as_wide = (fresh_state(tiny(model__fmap_max=24, **more), CPU) for more in (other, {}))
    path = snapshot(origin, tmp_path / "a.safetensors")
    told, widens = transfer_weights(path, target), transfer_weights(path, as_wide)
    assert "widened, " in told and "would fit" not in told + widens
    for net, whole, theirs in ((target.G, as_wide.G, origin.G), (target.D, as_wide.D, origin.D)):
        mine, shapes = net.state_dict(), whole.state_dict()
        for name, tensor in theirs.state_dict().items():
            if mine[name].shape != shapes[name].shape and name != CENTRE:  # of which new classes get the mean
                assert f"{name} ({tuple(tensor.shape)} there, {tuple(mine[name].shape)} here)" in told


def test_a_generator_alone_grows_wider(tiny, tmp_path) -> None:
    """Its discriminator stays as it is; what begins with such a pair is one, unless it would lose feature maps."""
    narrow = fresh_state(tiny(seed=1), CPU)
    mixed = tiny(model__fmap_max=32, model__d_fmap_max=16)
    wide = fresh_state(mixed, CPU)
    told = transfer_weights(snapshot(narrow, tmp_path / "narrow.safetensors"), wide)
    assert "not:" not in told and told.count("widened") == 1
    assert same(wide.D, narrow.D) == set(narrow.D.state_dict()) and same(wide.G, narrow.G) != set(wide.G.state_dict())
    path = snapshot(wide, tmp_path / "wide.safetensors")
    assert stylegan.load(path).D.config == mixed.model.of_discriminator
    assert width_of(path, narrow.G.config) == {"model.fmap_max": 32, "model.d_fmap_max": 16}
    assert width_of(path, replace(narrow.G.config, fmap_max=64)) == {}
    told = transfer_weights(path, fresh_state(tiny(model__fmap_max=32, model__d_fmap_max=8), CPU))
    assert told.count("more would fit with --fmap-base 128 --d-fmap-max 16") == 1 and told.count("would fit") == 1


def test_new_resolutions_are_no_reason_for_fewer_feature_maps(tiny, tmp_path) -> None:
    origin = fresh_state(tiny(seed=1, model__resolution=8, growth__final=8), CPU)
    path = tmp_path / "a.safetensors"
    save_snapshot(path, origin.G_ema, origin.D, config=origin.G.config, resolution=8, alpha=1.0, kimg=1.0, data="x")
    told = transfer_weights(str(path), fresh_state(tiny(model__fmap_max=24), CPU))
    assert "widened" in told and "(new)" in told and "would fit" not in told


def test_a_file_without_a_discriminator_says_so(tiny, tmp_path) -> None:
    origin, target = fresh_state(tiny(seed=1), CPU), fresh_state(tiny(), CPU)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors", with_d=False), target)
    assert "D: none in the file, starts fresh" in told


def test_a_missing_file_is_the_users_to_correct(tiny, tmp_path) -> None:
    with pytest.raises(UserError):
        transfer_weights(str(tmp_path / "absent.safetensors"), fresh_state(tiny(), CPU))
