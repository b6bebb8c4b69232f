"""Moving along directions and back, and taking one out of another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.directions import (
    Directions,
    along,
    conditional,
    in_w,
    moved,
    moved_ws,
    sampled,
    scales_of,
    together,
    upright,
)
from stylegan.editing.pca_sefa import covariance
from stylegan.latents.latents import Latents
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
SIZES = [32, 32, 16, 16, 8, 8]


def snapshot(cfg: StyleGAN1Config = TINY) -> Snapshot:
    torch.manual_seed(0)
    G = build_generator(cfg).eval().requires_grad_(False)
    return Snapshot(G=G, D=None, config=cfg, stage=Stage(16), kimg=1.0, data="faces")


def latents(count: int = 2) -> Latents:
    torch.manual_seed(2)
    z = torch.randn(count, 8)
    names = tuple(f"seed{i:04d}" for i in range(count))
    return Latents(snapshot().G.latents(z), names, names, z=z, psi=1.0)


def some(count: int = 1, seed: int = 3) -> Directions:
    torch.manual_seed(seed)
    names = [f"d{seed}{i}" for i in range(count)]
    return in_w(torch.randn(count, 8), names, (1, 2, 4), "by chance", torch.cov(torch.randn(8, 200)).double())


def channel_edit() -> Directions:
    styles = [torch.zeros(1, size) for size in SIZES]
    styles[2][0, 5] = 1.0
    zeros = torch.zeros(1, 1, 8)
    return replace(some(), vectors=zeros, styles=tuple(styles), layers=((2,),), names=("layer 2 scale 5",))


@given(st.floats(-5, 5), st.booleans())
def test_there_and_back_returns(strength, styles):
    direction, start = channel_edit() if styles else some(), latents()
    back = moved(moved(start, direction, strength), direction, -strength)
    torch.testing.assert_close(back.ws, start.ws, atol=1e-5, rtol=1e-5)
    assert all(s.abs().max() < 1e-5 for s in back.styles)


def test_strength_0_changes_nothing_at_all():
    start = latents()
    assert moved(start, some(), 0.0) is start and moved_ws(start.ws, some(), 0.0) is start.ws


def test_only_the_layers_of_the_direction_move_or_those_asked_for():
    start, direction = latents(), some()
    for layers, chosen in ((None, {1, 2, 4}), ([0], {0}), ([], set())):
        step = (moved(start, direction, 2.0, layers).ws - start.ws).abs().sum(dim=(0, 2))
        assert {i for i, size in enumerate(step) if size > 0} == chosen
    expected = 2.0 * direction.scales[0] * direction.vectors[0, 0]
    torch.testing.assert_close(moved(start, direction, 2.0).ws[:, 1], start.ws[:, 1] + expected)


def test_w_plus_directions_move_each_layer_its_own_way():
    start = latents()
    direction = replace(some(), vectors=torch.randn(1, 6, 8), layers=(tuple(range(6)),))
    torch.testing.assert_close(
        moved(start, direction, 1.5).ws, start.ws + 1.5 * direction.scales[0] * direction.vectors[0]
    )


def test_what_is_moved_says_so_and_has_no_z():
    found = moved(latents(), channel_edit(), -1.5)
    assert found.z is None and found.names[0] == "seed0000-1.5layer_2_scale_5"
    assert found.origins[1] == "seed0001, -1.5 layer 2 scale 5" and found.psi == 1.0


def test_edits_of_styles_add_up_and_reach_the_picture():
    snap, start, edit = snapshot(), latents(), channel_edit()
    once, twice = moved(start, edit, 1.0), moved(moved(start, edit, 1.0), edit, 1.0)
    torch.testing.assert_close(twice.styles[2], 2 * once.styles[2])
    assert once.styles[2][0, 5] == edit.scales[0] and torch.equal(once.ws, start.ws)
    plain, edited = (snap.renderer.draw(x.ws, edits=x.styles) for x in (start, once))
    assert not torch.equal(plain, edited)
    assert moved(start, edit, 1.0, layers=[0]).styles[2].abs().max() == 0


def test_several_directions_and_missing_layers_are_errors():
    with pytest.raises(UserError, match="name one of them"):
        moved(latents(), some(2), 1.0)
    with pytest.raises(UserError, match="no layer 6: these latents have 6"):
        moved(latents(), some(), 1.0, layers=[6])
    with pytest.raises(UserError, match="edits styles"):
        moved_ws(latents().ws, channel_edit(), 1.0)


def flat(direction: Directions) -> Tensor:
    return direction.vectors[0].flatten().double()


@pytest.mark.parametrize("others", [1, 3])
def test_a_conditional_direction_leaves_what_is_taken_out(others):
    """Planes whose directions are taken out answer the same after a move."""
    direction, cov = some(), torch.diag(torch.arange(1.0, 9.0)).double()
    normals = torch.linalg.qr(torch.randn(8, others, generator=torch.Generator().manual_seed(9)))[0].T
    taken = in_w(along(normals, cov), [f"n{i}" for i in range(others)], range(6), "planes", cov)
    found = conditional(direction, taken, cov)
    torch.testing.assert_close(normals.double() @ flat(found), torch.zeros(others).double(), atol=1e-6, rtol=0)
    assert flat(found).norm() == pytest.approx(1, abs=1e-6)
    assert flat(found) @ (flat(direction) / cov.diag()) > 0  # still the same way
    torch.testing.assert_close(found.scales, scales_of(found.vectors, cov))
    assert found.names == (f"{direction.names[0]} without " + ", ".join(taken.names),)


def test_moving_along_a_plane_s_direction_changes_its_answer_most():
    random = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=random).double()
    cov, normal = root @ root.T, torch.randn(1, 8, generator=random)
    best = in_w(along(normal, cov), ["best"], range(6), "plane", cov)
    rivals = in_w(torch.cat([normal, torch.randn(200, 8, generator=random)]), ["?"] * 201, range(6), "any", cov)
    answers = [
        float(abs(normal @ d.vectors[0, 0]) * d.scales[0]) for d in (best, *(rivals[i : i + 1] for i in range(201)))
    ]
    assert max(answers) == answers[0]  # for one deviation of w each


def test_a_direction_without_itself_is_nothing():
    with pytest.raises(UserError, match="nothing is left"):
        conditional(some(), together([some(1, 9), some()]), torch.eye(8).double())
    with pytest.raises(UserError, match="edit styles"):
        conditional(channel_edit(), some(), torch.eye(8).double())


def test_strength_1_is_one_standard_deviation():
    torch.manual_seed(0)
    w = torch.randn(500, 8) @ torch.randn(8, 8) + 5
    directions = in_w(torch.randn(3, 8) * 7, list("abc"), (0,), "chance", covariance([w])[1])
    torch.testing.assert_close(directions.scales, (w @ directions.vectors[:, 0].T).std(dim=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(directions.vectors.norm(dim=2), torch.ones(3, 1))


def test_the_largest_entry_points_up():
    vectors = torch.tensor([[1.0, -3.0], [2.0, -1.0]])
    assert upright(vectors).tolist() == [[-1.0, 3.0], [2.0, -1.0]]


def test_samples_are_the_w_of_the_seeds_and_need_classes_where_there_are_some():
    snap = snapshot()
    found = torch.cat(list(sampled(snap, range(300))))
    assert found.shape == (300, 8)
    torch.testing.assert_close(found[7:8], torch.cat(list(sampled(snap, [7]))))
    with pytest.raises(UserError, match="3 classes"):
        list(sampled(snapshot(replace(TINY, num_classes=3)), range(2)))
    with pytest.raises(UserError, match="ProGAN has no w"):
        list(sampled(snapshot(ProGANConfig(resolution=16, z_dim=8, fmap_max=16)), range(2)))
