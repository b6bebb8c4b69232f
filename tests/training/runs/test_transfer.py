"""What fits of another network is taken, the rest is listed; a wider network begins as the narrower one it
is made from, and everything in it learns.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import stylegan
from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.networks.config import Stage
from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from training.runs.transfer import CENTRE, inherited, transfer_weights
from training.state import TrainState, fresh_state

CPU = torch.device("cpu")


def snapshot(state: TrainState, path: Path, with_d: bool = True) -> str:
    D = state.D if with_d else None
    store(path, Snapshot(state.G_ema, D, state.G.config, Stage(16), 1.0, "x"))
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


def test_classes_of_other_names_are_said(tiny, tmp_path) -> None:
    origin = fresh_state(tiny(model__num_classes=2), CPU)
    path = tmp_path / "a.safetensors"
    store(path, Snapshot(origin.G_ema, origin.D, origin.G.config, Stage(16), 1.0, "x", class_names=("cat", "dog")))
    assert "Classes: 0 was cat and is dog, 1 was dog and is cat;" in transfer_weights(str(path), origin, ("dog", "cat"))
    assert "Classes" not in transfer_weights(str(path), origin, ("cat", "dog"))


@pytest.mark.parametrize("ours, theirs", [(16, 8), (8, 16)])
def test_another_resolution_keeps_what_both_have(tiny, tmp_path, ours: int, theirs: int) -> None:
    def state(resolution: int, seed: int) -> TrainState:
        return fresh_state(tiny(seed=seed, model__resolution=resolution, growth__final=resolution), CPU)

    origin, target = state(theirs, 1), state(ours, 0)
    fresh = target.G.synthesis.blocks[str(ours)][0].weight.clone()
    path = tmp_path / "a.safetensors"
    store(path, Snapshot(origin.G_ema, origin.D, origin.G.config, Stage(theirs), 1.0, "x"))
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
    {"model__base": (4, 6)}, {"model__w_dim": 24}, {"data__cond": True},
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
        left = [
            f"{name} ({tuple(tensor.shape)} there, {tuple(mine[name].shape)} here)"
            for name, tensor in theirs.state_dict().items()
            if mine[name].shape != shapes[name].shape and name != CENTRE  # of which new classes get the mean
        ]
        assert not left or any(one in told for one in left)


def test_what_does_not_fit_is_listed_by_block(tiny, tmp_path) -> None:
    origin, target = fresh_state(tiny(seed=1), CPU), fresh_state(tiny(model__w_dim=24), CPU)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors"), target)
    assert "synthesis.blocks.8.0.style.weight ((32, 16) there, (32, 24) here) and 1 more of synthesis.blocks.8;" in told
    assert "synthesis.blocks.8.1" not in told


# Settings of the source, and images with other channels


def test_a_new_run_takes_what_decides_the_images_unless_its_family_is_another(tiny, tmp_path) -> None:
    model = tiny().model
    other = replace(model, z_dim=12, w_dim=20, mapping_layers=3, mapping_dim=24, mapping_lr_mul=0.3, noise=False,
                    fmap_max=32, resolution=8, num_classes=3, mbstd_group=2, style_mixing=0.1)  # fmt: skip
    path = str(tmp_path / "a.safetensors")
    store(Path(path), Snapshot(build_generator(other), None, other, Stage(8), 1.0, "x"))
    taken = inherited(path, model)
    assert taken == {
        "model.z_dim": 12, "model.w_dim": 20, "model.mapping_layers": 3, "model.mapping_dim": 24,
        "model.mapping_lr_mul": 0.3, "model.noise": False, "model.fmap_max": 32,
    }  # fmt: skip
    assert set(taken) <= {f"model.{name}" for name in model.inheritable}
    assert inherited(path, DCGANConfig(resolution=16)) == {}


@pytest.mark.parametrize("there, here", [(1, 3), (3, 1), (3, 4), (4, 3), (1, 4), (1, 2), (4, 1)])
def test_other_channels_keep_the_images(tiny, tmp_path, there: int, here: int) -> None:
    """Grey is three equal channels and back; alpha is opaque. Scores of such images stay what they were, too."""
    origin = fresh_state(tiny(seed=1, model__channels=there), CPU)
    for parameter in [*origin.G_ema.parameters(), *origin.D.parameters()]:
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
    target = fresh_state(tiny(model__channels=here), CPU)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors"), target)
    assert "not:" not in told and told.count("of them for images of other channels") == 2
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))

    def converted(images: torch.Tensor) -> torch.Tensor:
        colours, alpha = (images[:, :-1], images[:, -1:]) if there in (2, 4) else (images, torch.ones(4, 1, 16, 16))
        wanted = 3 if here > 2 else 1
        colours = (
            colours if colours.shape[1] == wanted else colours.mean(dim=1, keepdim=True).expand(-1, wanted, -1, -1)
        )
        return torch.cat([colours, alpha], dim=1)[:, :here]

    with torch.no_grad():
        images = origin.G_ema(z)
        torch.testing.assert_close(target.G(z), converted(images), rtol=1e-5, atol=1e-5)
        # Only of images that both networks can see.
        plain = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1

        def shown(channels: int) -> torch.Tensor:
            grey = plain.expand(-1, 3 if channels > 2 else 1, -1, -1)
            return torch.cat([grey, torch.ones_like(plain)], dim=1)[:, :channels]

        torch.testing.assert_close(target.D(shown(here)), origin.D(shown(there)), rtol=1e-4, atol=1e-4)


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
    assert inherited(path, narrow.G.config) == {"model.fmap_max": 32, "model.d_fmap_max": 16}
    assert inherited(path, replace(narrow.G.config, fmap_max=64)) == {}
    told = transfer_weights(path, fresh_state(tiny(model__fmap_max=32, model__d_fmap_max=8), CPU))
    assert told.count("more would fit with --fmap-base 128 --d-fmap-max 16") == 1 and told.count("would fit") == 1


def test_new_resolutions_are_no_reason_for_fewer_feature_maps(tiny, tmp_path) -> None:
    origin = fresh_state(tiny(seed=1, model__resolution=8, growth__final=8), CPU)
    path = tmp_path / "a.safetensors"
    store(path, Snapshot(origin.G_ema, origin.D, origin.G.config, Stage(8), 1.0, "x"))
    told = transfer_weights(str(path), fresh_state(tiny(model__fmap_max=24), CPU))
    assert "widened" in told and "(new)" in told and "would fit" not in told


def test_a_file_without_a_discriminator_says_so(tiny, tmp_path) -> None:
    origin, target = fresh_state(tiny(seed=1), CPU), fresh_state(tiny(), CPU)
    told = transfer_weights(snapshot(origin, tmp_path / "a.safetensors", with_d=False), target)
    assert "D: none in the file, starts fresh" in told


def test_a_missing_file_is_the_users_to_correct(tiny, tmp_path) -> None:
    with pytest.raises(UserError):
        transfer_weights(str(tmp_path / "absent.safetensors"), fresh_state(tiny(), CPU))


# From a narrower network


@pytest.fixture
def grown(tiny, tmp_path):
    """grown(before, after) -> the states of a run and of one that takes its weights, and what was said."""

    def make(before: dict, after: dict) -> tuple[TrainState, TrainState, str]:
        narrow, wide = fresh_state(tiny(seed=1, **before), CPU), fresh_state(tiny(**before | after), CPU)
        for parameter in [*narrow.G_ema.parameters(), *narrow.D.parameters()]:  # the noise and biases are 0 at first
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
        path = tmp_path / "narrow.safetensors"
        store(path, Snapshot(narrow.G_ema, narrow.D, narrow.G.config, Stage(16), 1.0, "x"))
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
        images = narrow.G_ema(z, c)
        for G in (wide.G, wide.G_ema):
            assert torch.allclose(G(z, c), images, atol=1e-4)
        assert torch.allclose(wide.D(images, c), narrow.D(images, c), atol=1e-4)


def test_the_minibatch_deviation_stays_where_it_was(grown) -> None:
    """With 16x16 wider and 4x4 as wide as before, it is an average over the same maps."""
    narrow, wide, _ = grown({}, {"model__fmap_base": 256})
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(wide.D(images), narrow.D(images), atol=1e-4)
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
    assert replace(narrow, fmap_base=8192).wider_than(narrow)
    assert replace(narrow, resolution=128, fmap_max=256).wider_than(narrow)
    assert replace(narrow, fmap_max=256).wider_than(replace(narrow, resolution=128))
    assert not narrow.wider_than(narrow)
    assert not replace(narrow, fmap_base=8192, fmap_max=64).wider_than(narrow)
    assert not replace(narrow, fmap_max=256, pixel_norm=True).wider_than(replace(narrow, pixel_norm=True))
    assert not replace(narrow, fmap_base=8192, resolution=32).wider_than(replace(narrow, resolution=32))


def test_a_network_of_another_kind_is_not_widened_and_leaves_what_fits(tiny, tmp_path) -> None:
    dcgan = DCGANConfig(resolution=16, z_dim=16, fmap_base=64, fmap_max=8)
    style = tiny().model
    assert not style.wider_than(dcgan) and not dcgan.wider_than(style)
    for ours, theirs in ((style, dcgan), (dcgan, style)):
        target, origin = (fresh_state(replace(tiny(), model=model), CPU) for model in (ours, theirs))
        path = snapshot(origin, tmp_path / "other.safetensors")
        told = transfer_weights(path, target)
        assert told.count("0 tensors taken") == 2 and "widened" not in told and "would fit" not in told
        assert inherited(path, ours) == {}
