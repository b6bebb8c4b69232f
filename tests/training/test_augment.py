"""DiffAugment: what is changed, by how much, and that a generator learns through it."""

from __future__ import annotations

import pytest
import torch

from torch_utils.errors import UserError
from training.augment import DRAWS, augment
from training.config import AUGMENTATIONS, parse_augmentations

MIDDLE = [0.5] * DRAWS


def images(channels: int = 3, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(4, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def drawn(count: int = 4, **at: float) -> torch.Tensor:
    """Draws that change nothing but what is named, by its place."""
    return torch.tensor([[at.get(f"d{i}", MIDDLE[i]) for i in range(DRAWS)]] * count, dtype=torch.float64)


def random_draws(count: int) -> torch.Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_middling_draws_change_neither_colour_nor_place() -> None:
    x = images()
    torch.testing.assert_close(augment(x, drawn(), ("color", "translation")), x)
    assert torch.equal(augment(x, random_draws(4), ()), x)


def test_brightness_adds_and_contrast_and_saturation_stretch() -> None:
    x = images()
    torch.testing.assert_close(augment(x, drawn(d0=0.75), ("color",)), x + 0.25)
    grey = augment(x, drawn(d1=0.0), ("color",))
    torch.testing.assert_close(grey, x.mean(dim=1, keepdim=True).expand_as(x))
    flat = augment(x, drawn(d2=0.0), ("color",))
    torch.testing.assert_close(flat.std(dim=(1, 2, 3)), x.std(dim=(1, 2, 3)) / 2)
    torch.testing.assert_close(flat.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("draw, steps", [(0.0, -2), (0.2, -1), (0.5, 0), (0.99, 2)])
def test_pictures_move_by_up_to_an_eighth_and_grey_comes_in(draw: float, steps: int) -> None:
    x = images()
    moved = augment(x, drawn(d3=draw), ("translation",))
    assert torch.equal(moved[:, :, max(steps, 0) : 16 + min(steps, 0)], x[:, :, max(-steps, 0) : 16 - max(steps, 0)])
    grey = moved[:, :, :steps] if steps > 0 else moved[:, :, 16 + steps :]
    assert grey.numel() == 4 * 3 * abs(steps) * 24 and not grey.any()
    assert torch.equal(augment(x, drawn(d4=0.0), ("translation",))[..., :-3], x[..., 3:])


def test_the_hole_is_half_as_wide_and_high_and_may_reach_over_the_edge() -> None:
    x = torch.ones(2, 1, 16, 24)
    middle = augment(x, drawn(2), ("cutout",))
    assert not middle[:, :, 4:12, 6:18].any() and middle.sum() == 2 * (16 * 24 - 8 * 12)
    corner = augment(x, drawn(2, d5=0.0, d6=0.0), ("cutout",))
    assert not corner[:, :, :4, :6].any() and corner.sum() == 2 * (16 * 24 - 4 * 6)


def test_each_picture_has_its_own_way_whatever_is_beside_it() -> None:
    x, draws = images(), random_draws(4)
    whole = augment(x, draws, AUGMENTATIONS)
    apart = torch.cat([augment(x[i : i + 1], draws[i : i + 1], AUGMENTATIONS) for i in range(4)])
    torch.testing.assert_close(whole, apart)
    same = augment(x[:1].expand(4, -1, -1, -1), draws, AUGMENTATIONS)
    assert len({image.numpy().tobytes() for image in same}) == 4


def test_transparency_has_no_colour() -> None:
    x, draws = images(4), random_draws(4)
    seen = augment(x, draws, ("color",))
    assert torch.equal(seen[:, 3], x[:, 3])
    torch.testing.assert_close(seen[:, :3], augment(x[:, :3], draws, ("color",)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_derivatives(channels: int) -> None:
    x = images(channels, 8, 8)[:2].double().requires_grad_()
    draws = random_draws(2)
    assert torch.autograd.gradcheck(lambda x: augment(x, draws, AUGMENTATIONS), x)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draws, AUGMENTATIONS).square(), x)


def test_names_are_read_in_any_order_and_wrong_ones_refused() -> None:
    assert parse_augmentations("cutout, color") == ("color", "cutout")
    assert parse_augmentations("none") == ()
    with pytest.raises(UserError, match="'colour' .*color,translation,cutout, or none"):
        parse_augmentations("colour")
