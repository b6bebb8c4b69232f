"""SeFa's directions are orthonormal, and the eigenvectors that they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.editing.pca_sefa import sefa, style_weights
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.mark.parametrize("rows", [4, 8, 50])
def test_orthonormal_and_equal_to_brute_force(rows):
    torch.manual_seed(0)
    A = torch.randn(rows, 8, dtype=torch.float64)
    directions, sizes = sefa(A, 8)
    np.testing.assert_allclose(directions @ directions.T, np.eye(8), atol=1e-12)
    values, vectors = np.linalg.eigh((A.T @ A).numpy())
    np.testing.assert_allclose(sizes, values[::-1], atol=1e-9)
    for k in range(min(rows, 8)):  # beyond the rank any basis of what is left will do
        assert abs(directions[k].numpy() @ vectors[:, -1 - k]) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close((A @ directions.T).square().sum(dim=0), sizes, atol=1e-9, rtol=1e-9)


def test_no_direction_moves_the_styles_of_a_network_more():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    directions, sizes = sefa(style_weights(G, [1, 2]), 3)
    w, others = torch.randn(1, 8), torch.nn.functional.normalize(torch.randn(100, 8))

    def change(d: torch.Tensor) -> torch.Tensor:
        before, after = (G.styles(G.broadcast(x)) for x in (w, w + d))
        return sum((after[k] - before[k]).square().sum(dim=1) for k in (1, 2))

    torch.testing.assert_close(change(directions.float()), sizes.float(), rtol=1e-3, atol=1e-4)
    assert (change(others) <= sizes[0] * 1.001).all()


def test_each_layer_has_its_part_of_the_matrix():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    parts = [style_weights(G, [layer]) for layer in range(6)]
    assert [len(part) for part in parts] == TINY.style_dims()
    assert torch.equal(style_weights(G, [1, 4]), torch.cat([parts[1], parts[4]]))
    for part, layer in zip(parts, G.synthesis.style_layers()):
        assert torch.equal(part, (layer.style.weight * layer.style.scale).double())


def test_more_than_there_are():
    with pytest.raises(UserError, match="8 such directions, not 9"):
        sefa(torch.eye(8), 9)
