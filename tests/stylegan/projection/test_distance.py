"""Every distance is one: nothing to itself, the same both ways, each image's its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.config import Stage
from stylegan.projection.distance import PIXELS, Distance, against, pick_distance, pixel_pyramid
from tests.stylegan import tiny
from tests.stylegan.tiny import TINY
from torch_utils.errors import UserError


def snapshot(stage: Stage = TINY.full, with_d: bool = True) -> Snapshot:
    return tiny.snapshot(stage=stage, with_d=with_d)


def images(seed: int, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


DISTANCES = [pick_distance("pixels", snapshot()), pick_distance("discriminator", snapshot()),
             pick_distance("discriminator", snapshot(Stage(16, 0.5)))]  # fmt: skip


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: d.name)
def test_laws(distance: Distance):
    a, b = images(1), images(2)
    assert distance(a, b).shape == (3,) and (distance(a, b) > 0).all()
    assert (distance(a, a) == 0).all()
    torch.testing.assert_close(distance(a, b), distance(b, a))
    torch.testing.assert_close(distance(a, b)[1:2], distance(a[1:2], b[1:2]))
    torch.testing.assert_close(against(distance, b)(a), distance(a, b))
    torch.testing.assert_close(against(distance, b, torch.bfloat16)(a), distance(a, b), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: d.name)
def test_a_step_down_the_gradient_comes_nearer(distance: Distance):
    a, b = images(1).requires_grad_(), images(2)
    before = distance(a, b)
    (gradient,) = torch.autograd.grad(before.sum(), a)
    assert (distance(a - 1e-2 * gradient / gradient.norm(), b) < before).all()


def test_any_function_will_do():
    a, b = images(1), images(2)
    assert torch.equal(against(lambda x, y: (x - y).abs().mean(dim=(1, 2, 3)), b)(a), (a - b).abs().mean(dim=(1, 2, 3)))


def test_the_pixel_pyramid_of_flat_images_is_their_mean_square():
    assert [level.shape[-1] for level in pixel_pyramid(images(1))] == [16, 8, 4]
    flat = torch.tensor([0.5, -0.25]).reshape(2, 1, 1, 1).expand(2, 3, 16, 16)
    torch.testing.assert_close(PIXELS(flat, torch.zeros_like(flat)), torch.tensor([0.25, 0.0625]))


def test_the_default_is_the_discriminator_where_there_is_one():
    assert pick_distance("", snapshot()).name == "discriminator"
    assert pick_distance("", snapshot(with_d=False)).name == "pixels"
    with pytest.raises(UserError, match="has no discriminator"):
        pick_distance("discriminator", snapshot(with_d=False))


def test_names_and_weights_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match="'l1' is not a distance; choose one of discriminator, pixels"):
        pick_distance("l1", snapshot())
    with pytest.raises(UserError, match="the distance is pixels, which needs none"):
        pick_distance("pixels", snapshot(), [tmp_path])


def test_the_discriminator_looks_at_images_of_its_stage_as_they_fade_in_there():
    a, b = images(1), images(2)
    fading, grown = (pick_distance("", snapshot(stage)) for stage in (Stage(16, 0.5), Stage(16)))
    assert not torch.allclose(fading(a, b), grown(a, b))
    small = [torch.nn.functional.avg_pool2d(x, 2) for x in (a, b)]
    torch.testing.assert_close(fading(*small), grown(*small))  # of another size: alpha is not theirs
    half = pick_distance("", snapshot(Stage(8, 0.5)))
    assert not torch.allclose(half(*small), grown(*small))
    torch.testing.assert_close(half(a, b), grown(a, b))


def test_features_end_where_the_head_begins():
    D = snapshot().D
    assert D is not None
    found = list(D.features(images(1)))
    assert [x.shape[-1] for x in found] == [16, 8, 4]
    torch.testing.assert_close(D.head(found[-1])[:, 0], D(images(1)))
    assert replace(TINY).nf(4) == found[-1].shape[1]
