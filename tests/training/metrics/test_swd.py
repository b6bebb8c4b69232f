"""The sliced Wasserstein distance: its pyramid adds up, and it tells at which level images differ."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torch_utils.errors import UserError
from training.metrics import image_stats as swd
from training.metrics.image_stats import laplacian_pyramid, levels, patch_dims, patches, sliced_wasserstein


@pytest.fixture(autouse=True)
def fewer_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swd, "DIRECTIONS", 16)


def images(count: int, seed: int = 0, side: int = 32) -> torch.Tensor:
    """Soft blotches."""
    coarse = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def distances(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    return sliced_wasserstein(patches(a, 0), patches(b, 0), channels=1)


def test_the_pyramid_adds_up_to_the_image():
    x = torch.rand(2, 3, 32, 48)
    fine, coarse = laplacian_pyramid(x)
    torch.testing.assert_close(fine + swd._enlarged(coarse, x.shape[2:]), x)
    constant = laplacian_pyramid(torch.full((1, 1, 32, 32), 9.0))
    assert constant[0].abs().max() < 1e-5 and torch.allclose(constant[1], torch.tensor(9.0))


def test_patches_are_pieces_of_the_levels_each_with_places_of_its_own():
    x = images(3)
    found = patches(x, 5)
    assert found.shape == (3, 2 * swd.PATCHES * patch_dims(1))
    assert torch.equal(found[1], patches(x[1:2], 6)[0]) and not torch.equal(found[1], patches(x[1:2], 7)[0])
    level = laplacian_pyramid(x[:1].float())[0][0, 0]
    patch = found[0, : patch_dims(1)].reshape(7, 7)
    windows = level.unfold(0, 7, 1).unfold(1, 7, 1)
    assert (windows == patch).all(dim=(2, 3)).any()


def test_the_distance_of_moved_numbers_is_known(monkeypatch):
    """A set against itself is at 0. Rows and directions in one dimension: sorted numbers are compared."""
    x = images(8)
    assert distances(x, x) == [0.0, 0.0]
    monkeypatch.setattr(swd, "_AT_ONCE", 1)  # one direction at a time
    a, b = patches(images(8), 0), patches(images(8, seed=1), 0)
    one_by_one = sliced_wasserstein(a, b, 1)
    monkeypatch.setattr(swd, "_AT_ONCE", 64 << 20)
    assert one_by_one == pytest.approx(sliced_wasserstein(a, b, 1), rel=1e-5)


def test_fine_noise_shows_at_the_fine_level_and_more_noise_shows_more():
    x, other = images(24), images(24, seed=1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    clean = distances(x, other)
    noisy = [distances(x, (other + strength * noise).clamp(0, 255).to(torch.uint8)) for strength in (6, 30)]
    assert clean[0] < noisy[0][0] < noisy[1][0]
    assert noisy[1][0] - clean[0] > 3 * abs(noisy[1][1] - clean[1])


def test_tiny_pictures_have_no_patches():
    assert levels(128, 96) == [128, 64, 32][:2] + [32]
    with pytest.raises(UserError, match="at least 16 pixels, not of 8x8"):
        levels(8, 8)
