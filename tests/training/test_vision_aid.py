"""Laws of the second discriminator. Its network has random weights here: nothing is fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan.features import lpips
from stylegan.networks.layers import EqualConv2d
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from torch_utils.images import to_float
from training import vision_aid as module
from training.config import AID_NETS, AID_SMALLEST, LossConfig, RunConfig
from training.data.archive import Archive
from training.data.dataset import Dataset
from training.inputs import draw
from training.losses import GANLoss, aid_d_loss, aid_g_loss
from training.schedule import PerResolution, TrainingStage
from training.state import TrainState, fresh_state
from training.step import train_step
from training.vision_aid import (
    DEPTHS,
    EAGERNESS,
    FLOOR,
    VisionAid,
    VisionAidHead,
    build_vision_aid,
)

CPU, FP32 = torch.device("cpu"), torch.float32
NET = AID_NETS["vgg16"]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Gains that keep the size of what passes, as a trained network's do."""
    torch.manual_seed(0)
    return {
        name: torch.randn(shape) * (2 / max(1, torch.Size(shape[1:]).numel())) ** 0.5
        for name, shape in lpips.shapes(NET).items()
    }


@pytest.fixture
def aid(weights) -> VisionAid:
    torch.manual_seed(1)
    return VisionAid(NET, weights, group=4)


@pytest.fixture
def at_hand(weights, monkeypatch) -> None:
    monkeypatch.setattr("training.vision_aid.find_weights", lambda net, advice: weights)


@pytest.fixture
def cfg(tiny, new_images, at_hand) -> RunConfig:
    """A run that begins at 32x32, where there are eyes."""
    return tiny(
        new_images(size=(32, 32)), model__base=(4, 4), model__resolution=32, growth__initial=32, growth__final=32,
        growth__batch=PerResolution(4), loss__name="relativistic", loss__vision_aid="vgg16", model__mbstd_group=2,
    )  # fmt: skip


def some_images(seed: int, count: int = 4, size: int = 64, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def steps(cfg: RunConfig, count: int, state: TrainState | None = None) -> TrainState:
    state, data = state or fresh_state(cfg, CPU), Dataset(Archive.open(cfg.data.path), seed=cfg.seed)
    for _ in range(count):
        stage = cfg.growth.at(state.nimg)
        images, _ = data.batch(state.nimg, stage.batch, *cfg.model.size(stage.resolution))
        stats = train_step(state, (to_float(images), None), stage, cfg, None, FP32)
        assert {"aid_d", "aid_g", "aid_r"} <= stats.keys()
        state.nimg += stage.batch
    assert (reading := state.read()) and not reading.culprits
    return state


def flat(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (128, 4)])
def test_heads_see_patches_at_three_depths_and_their_averages(aid, size: int, channels: int) -> None:
    seen = aid.features(some_images(0, size=size, channels=channels), FP32)
    side = max(size, 64)
    assert [tuple(x.shape[1:]) for x in seen] == [
        (256, side // 4, side // 4), (512, side // 8, side // 8), (512, side // 16, side // 16),
        (256, 1, 1), (512, 1, 1), (512, 1, 1),
    ]  # fmt: skip
    for patches, whole in zip(seen[:DEPTHS], seen[DEPTHS:], strict=True):
        torch.testing.assert_close(whole, patches.mean(dim=(2, 3), keepdim=True))
    for x, scores in zip(seen, aid.scores(seen), strict=True):
        assert scores.shape == (4, 1, *x.shape[2:]) and scores.dtype == FP32


def test_enlarged_pictures_show_what_is_small(weights, at_hand) -> None:
    """Twice as many patches along each side, each of half the size; and a gradient that reaches the images."""
    aid = build_vision_aid(LossConfig(vision_aid="vgg16", aid_zoom=2), 4, CPU)
    assert aid is not None
    images = some_images(0).requires_grad_()
    seen = aid.features(images, FP32)
    large = torch.nn.functional.interpolate(images, size=(128, 128), mode="bicubic")
    for x, expected in zip(seen, VisionAid(NET, weights, group=4).features(large, FP32), strict=True):
        torch.testing.assert_close(x, expected)
    assert [x.shape[2] for x in seen[:DEPTHS]] == [32, 16, 8]
    aid_g_loss(aid, aid.features(some_images(1), FP32), seen).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_heads_see_how_much_there_is_of_a_thing(aid) -> None:
    """Half the contrast gives shorter feature vectors, and other scores."""
    images = some_images(0)
    full, half = (aid.features(x, FP32) for x in (images, images / 2))
    for a, b in zip(full, half, strict=True):
        assert b.norm() < 0.9 * a.norm()


def test_calibrated_channels_vary_alike_unless_they_hardly_vary(aid) -> None:
    reals = some_images(0, count=20)
    before = aid.features(reals, FP32)
    aid.calibrate(reals.split([12, 8]), FP32)
    for raw, x in zip(before, aid.features(reals, FP32), strict=True):
        variance = raw.var(dim=(0, 2, 3), unbiased=False)
        torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros_like(variance), atol=1e-4, rtol=0)
        wanted = variance / (variance + FLOOR * variance.mean())
        torch.testing.assert_close(x.var(dim=(0, 2, 3), unbiased=False), wanted, rtol=1e-3, atol=1e-5)


def test_eager_heads_are_drawn_as_others_and_learn_faster() -> None:
    torch.manual_seed(0)
    plain = EqualConv2d(512, 64, 1)
    torch.manual_seed(0)
    eager = VisionAidHead(512, 3, 1).conv0
    x = torch.randn(2, 512, 4, 4)
    torch.testing.assert_close(eager(x), plain(x))
    moved = []
    for conv in (plain, eager):
        with torch.no_grad():
            conv.weight += 0.002
        moved.append(conv(x))
    base = moved[0] - (plain.scale * 0.002) * x.sum(dim=1, keepdim=True)
    torch.testing.assert_close(moved[1] - base, EAGERNESS * (moved[0] - base), rtol=1e-3, atol=1e-4)


def test_only_the_heads_learn_and_only_they_and_the_calibration_are_saved(aid) -> None:
    assert {name.split(".")[0] for name, _ in aid.named_parameters()} == {"heads"}
    calibration = {f"{what}{view}" for what in ("mean", "scale") for view in range(2 * DEPTHS)}
    assert aid.state_dict().keys() == dict(aid.named_parameters()).keys() | calibration
    loss, _ = aid_d_loss(aid, *(aid.features(some_images(seed), FP32) for seed in (0, 1)), 1.0)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in aid.parameters() if p.ndim > 1)


def test_the_penalty_is_what_the_scores_change_by(aid) -> None:
    """By finite differences along the gradient, in one head, per place; and it counts gamma / 2 times."""
    reals, fakes = some_images(0), some_images(1)
    maps = [aid.features(images, FP32) for images in (reals, fakes)]
    (plain, none), (whole, penalty) = (aid_d_loss(aid, *maps, gamma) for gamma in (0.0, 3.0))
    torch.testing.assert_close(whole, plain + 1.5 * penalty)
    assert none == 0
    total = 0.0
    for images in (reals, fakes):
        for head, x in zip(aid.heads, aid.features(images, FP32), strict=True):
            x = x.double().requires_grad_()
            head = head.double()
            (gradient,) = torch.autograd.grad(head(x).double().sum(), x)
            step = 1e-3 / gradient.norm()
            rise = (head(x + step * gradient).double() - head(x - step * gradient).double()).sum() / (2 * step)
            total += rise.item() / x.shape[0] / x[0, 0].numel() / len(aid.heads)
            head.float()
    assert penalty.item() == pytest.approx(total, rel=1e-3)


def test_heads_of_whole_pictures_see_how_much_a_batch_varies(aid) -> None:
    one, other = some_images(0)[:1], some_images(1)[:3]
    alike, mixed = (aid.scores(aid.features(x, FP32)) for x in (one.repeat(4, 1, 1, 1), torch.cat([one, other])))
    for view, (a, b) in enumerate(zip(alike, mixed, strict=True)):
        assert torch.allclose(a[0], b[0], atol=1e-5) == (view < DEPTHS)


def test_the_generator_goes_where_the_heads_say_reals_are(aid) -> None:
    reals, fakes = some_images(0), some_images(1).requires_grad_()
    real_maps = aid.features(reals, FP32)
    before = aid_g_loss(aid, real_maps, aid.features(fakes, FP32))
    before.backward()
    assert fakes.grad is not None
    step = 1e-3 * before.detach() / fakes.grad.square().sum()
    after = aid_g_loss(aid, real_maps, aid.features((fakes - step * fakes.grad).detach(), FP32))
    assert (before - after).item() == pytest.approx(1e-3 * before.item(), rel=0.1)
    assert reals.grad is None


@pytest.mark.parametrize("name", ["logistic", "relativistic", "hinge"])
@pytest.mark.parametrize("resolution", [16, 32])
def test_it_adds_to_both_losses_where_it_can_see(aid, name: str, resolution: int) -> None:
    model = StyleGAN1Config(resolution=32, z_dim=8, w_dim=8, mapping_dim=8, mapping_layers=2, fmap_base=128, fmap_max=8)
    torch.manual_seed(0)
    G, D = build_generator(model), build_discriminator(model)
    stage = TrainingStage(resolution, phase=0, batch=4, lr=0.001)
    alone = GANLoss(LossConfig(name), G, D, None, stage, 32, FP32, {"r1": 1.0}, share=4)
    aided = replace(alone, loss=replace(alone.loss, vision_aid="vgg16", aid_weight=0.5), vision_aid=aid)
    reals = some_images(0, size=resolution)
    inputs = replace(draw(model, 0, "d", range(4), resolution, None, CPU), reals=reals)
    fakes = alone.fakes(inputs)[0].detach()

    def d(loss: GANLoss) -> torch.Tensor:
        terms, _ = loss.d_loss(inputs)
        return torch.stack([term for term, _ in terms]).sum()

    def g(loss: GANLoss) -> torch.Tensor:
        ((term, _),), _ = loss.g_loss(inputs)
        return term

    seen = resolution >= AID_SMALLEST
    maps = [aid.features(images, FP32) for images in (reals, fakes)]
    of_d = 0.5 * aid_d_loss(aid, *maps, alone.loss.aid_gamma)[0] if seen else 0
    of_g = 0.5 * aid_g_loss(aid, *maps) if seen else 0
    torch.testing.assert_close(d(aided), d(alone) + of_d)
    torch.testing.assert_close(g(aided), g(alone) + of_g)


@pytest.mark.parametrize("share_fakes", [False, True])
def test_a_batch_in_parts_is_the_batch_at_once(share_fakes: bool, cfg, uneven) -> None:
    # An eps of 1 makes a step proportional to the gradient.
    cfg = replace(cfg, optim=replace(cfg.optim, eps=1.0), loss=replace(cfg.loss, share_fakes=share_fakes))
    once, parts, fresh = (fresh_state(cfg, CPU) for _ in range(3))
    for state in (once, parts, fresh):
        uneven(state)
    steps(cfg, 2, once)
    steps(replace(cfg, batch_gpu=2), 2, parts)
    for name in ("G", "D", "vision_aid"):
        one, start = (flat(getattr(state, name)) for state in (once, fresh))
        moved = (one - start).abs().max()
        assert moved > 0
        for key, ours in getattr(once, name).named_parameters():
            apart = (ours - getattr(parts, name).get_parameter(key)).abs().max()
            assert apart <= 1e-2 * moved, key


def test_a_run_goes_on_to_the_last_bit(cfg, tmp_path: Path) -> None:
    through = steps(cfg, 3)
    steps(cfg, 2).save(tmp_path / "state.pt", cfg)
    again = fresh_state(replace(cfg, seed=7), CPU)
    again.restore(tmp_path / "state.pt")
    steps(cfg, 1, again)
    for name in ("G", "D", "vision_aid", "G_ema"):
        assert torch.equal(flat(getattr(through, name)), flat(getattr(again, name)))


def test_a_run_without_it_has_none(tiny, monkeypatch) -> None:
    monkeypatch.setattr("training.vision_aid.find_weights", lambda net, advice: pytest.fail("fetched"))
    state = fresh_state(tiny(), CPU)
    assert state.vision_aid is None and state.discriminators is state.D and "aid" not in state.parts


def test_to_count_memory_nothing_is_fetched(monkeypatch) -> None:
    monkeypatch.setattr(module, "find_weights", lambda net, advice: pytest.fail("fetched"))
    found = build_vision_aid(LossConfig(vision_aid="vgg16"), 4, torch.device("meta"))
    assert found is not None and all(p.is_meta for p in found.parameters())


def test_a_run_whose_weights_cannot_be_had_leaves_nothing_behind(cfg, tmp_path: Path, monkeypatch) -> None:
    def nowhere(net: str, advice: str) -> None:
        raise UserError("no network here")

    from training.runs.launch import launch

    monkeypatch.setattr(module, "find_weights", nowhere)
    typed = {"data.path": cfg.data.path, "loss.vision_aid": "vgg16", "device": "cpu"}
    with pytest.raises(UserError, match="no network here"):
        launch(typed, tmp_path / "runs", None, None, False, 0.0)
    assert not (tmp_path / "runs").exists()
