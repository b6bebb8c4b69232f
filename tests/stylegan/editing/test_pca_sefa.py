"""Principal components of w and of activations, and SeFa's orthonormal directions that change styles most."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.editing import pca_sefa
from stylegan.networks.registry import build_generator
from tests.stylegan.tiny import TINY
from torch_utils.errors import UserError


def samples(count: int = 400) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(count, 8) @ torch.randn(8, 8) + 1000  # far from 0, where sums of squares would cancel


@pytest.mark.parametrize("batch", [1, 7, 64, 400])
def test_the_streamed_covariance_is_numpys(batch):
    x = samples()
    mean, cov, count = pca_sefa.covariance(x.split(batch))
    assert count == 400
    np.testing.assert_allclose(mean, x.double().mean(dim=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-9)


def test_components_are_those_of_numpys_svd():
    x = samples()
    vectors, variances = pca_sefa.components(pca_sefa.covariance(x.split(33))[1], 5)
    centred = (x - x.double().mean(dim=0)).double().numpy()
    _, sizes, expected = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(variances, sizes[:5] ** 2 / 399, rtol=1e-8)
    np.testing.assert_allclose(np.abs((vectors.numpy() * expected[:5]).sum(axis=1)), 1, atol=1e-8)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(5), atol=1e-10)


def test_activations_are_those_of_the_layer():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    w = torch.randn(6, 8)
    found = list(pca_sefa.activations(G, w.split(4), 3))
    assert torch.equal(torch.cat([part for part, _ in found]), w)
    features = torch.cat([feature for _, feature in found])
    x, layers = None, G.synthesis.style_layers()
    for index, layer in enumerate(layers[:4]):
        x = layer(x, w, layer.style(w), layer.noise, index, torch.float32)
    assert x is not None and features.shape == (6, TINY.nf(8) * 64)
    torch.testing.assert_close(features, x.flatten(1), rtol=1e-4, atol=1e-4)
    assert len(layers[3]._forward_hooks) == 0


def test_directions_of_linear_activations_are_the_inverse_map():
    """If activations are w times an orthogonal matrix, the regression gives back the components of w themselves."""
    x = samples(2000) - 1000
    turn, _ = torch.linalg.qr(torch.randn(8, 8))
    found, shares = pca_sefa.from_activations([(part, part @ turn) for part in x.split(100)], 3)
    expected, variances = pca_sefa.components(pca_sefa.covariance([x])[1], 3)
    cosines = torch.nn.functional.cosine_similarity(found, expected)
    assert (cosines.abs() > 0.999).all()
    torch.testing.assert_close(pca_sefa.from_activations([(x, x @ turn)], 3), (found, shares))
    whole = pca_sefa.covariance([x])[1].trace()
    torch.testing.assert_close(shares, (variances / whole).float(), rtol=1e-3, atol=0)


def test_too_much_and_too_little(monkeypatch):
    x = samples(10)
    with pytest.raises(UserError, match="do not have 10 components"):
        pca_sefa.from_activations([(x, x)], 10)
    with pytest.raises(UserError, match="8 principal components, not 9"):
        pca_sefa.components(torch.eye(8), 9)
    with pytest.raises(UserError, match="cannot vary"):
        pca_sefa.covariance([x[:1]])
    monkeypatch.setattr(pca_sefa, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="fewer --samples"):
        pca_sefa.from_activations([(x, x)], 2)


def test_the_largest_entry_points_up():
    vectors = torch.tensor([[1.0, -3.0], [2.0, -1.0]])
    assert pca_sefa.upright(vectors).tolist() == [[-1.0, 3.0], [2.0, -1.0]]


@pytest.mark.parametrize("rows", [4, 8, 50])
def test_orthonormal_and_equal_to_brute_force(rows):
    torch.manual_seed(0)
    A = torch.randn(rows, 8, dtype=torch.float64)
    directions, sizes = pca_sefa.sefa(A, 8)
    np.testing.assert_allclose(directions @ directions.T, np.eye(8), atol=1e-12)
    values, vectors = np.linalg.eigh((A.T @ A).numpy())
    np.testing.assert_allclose(sizes, values[::-1], atol=1e-9)
    for k in range(min(rows, 8)):  # beyond the rank any basis of what is left will do
        assert abs(directions[k].numpy() @ vectors[:, -1 - k]) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close((A @ directions.T).square().sum(dim=0), sizes, atol=1e-9, rtol=1e-9)


def test_no_direction_moves_the_styles_of_a_network_more():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    directions, sizes = pca_sefa.sefa(pca_sefa.style_weights(G, [1, 2]), 3)
    w, others = torch.randn(1, 8), torch.nn.functional.normalize(torch.randn(100, 8))

    def change(d: torch.Tensor) -> torch.Tensor:
        before, after = (G.styles(G.broadcast(x)) for x in (w, w + d))
        return sum((after[k] - before[k]).square().sum(dim=1) for k in (1, 2))

    torch.testing.assert_close(change(directions.float()), sizes.float(), rtol=1e-3, atol=1e-4)
    assert (change(others) <= sizes[0] * 1.001).all()


def test_each_layer_has_its_part_of_the_matrix():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    parts = [pca_sefa.style_weights(G, [layer]) for layer in range(6)]
    assert [len(part) for part in parts] == TINY.style_dims()
    assert torch.equal(pca_sefa.style_weights(G, [1, 4]), torch.cat([parts[1], parts[4]]))
    for part, layer in zip(parts, G.synthesis.style_layers()):
        assert torch.equal(part, (layer.style.weight * layer.style.scale).double())


def test_more_directions_than_w_has_dimensions():
    with pytest.raises(UserError, match="8 such directions, not 9"):
        pca_sefa.sefa(torch.eye(8), 9)
