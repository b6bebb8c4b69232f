"""Path length is that of the paper: fixtures of the published code, and networks whose length can be worked out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ops.philox import normals
from stylegan.networks.config import Stage
from stylegan.networks.inference import Execution
from stylegan.networks.sampling import slerp
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.projection.distance import PIXELS, pick_distance
from torch_utils.errors import UserError
from training.metrics.images import Sampling, inputs_at
from training.metrics.path_length import Paths, lerp, path_length, paths_of, seen, trimmed

DATA = np.load(Path(__file__).parents[2] / "data" / "latent_metrics.npz")
DIM = 6


def fixture(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(DATA[f"ppl/{name}"]))


class Simple:
    """A network, and its renderer, whose image is curve(w) as [D,1,1], plus `noise` times the noise; w is z itself."""

    has_w = True

    def __init__(self, curve, noise=0.0):
        self.curve, self.strength = curve, noise

    def map(self, z, c, *, psi):
        return z[:, None] if c is None else (z + c[:, None])[:, None]

    def broadcast(self, w):
        return w[:, None]

    def draw_there(self, ws, places, batch):
        return self.curve(ws[:, 0])[:, :, None, None] + self.strength * normals(places, 1)[:, :, None, None]


def simple(curve, noise=0.0, classes=0):
    config = StyleGAN1Config(resolution=4, z_dim=DIM, w_dim=DIM, num_classes=classes)
    network = Simple(curve, noise)
    return SimpleNamespace(G=network, renderer=network, config=config, stage=Stage(4), device=torch.device("cpu"))


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().sum(dim=(1, 2, 3))


def ends(snapshot, count, sampling):
    """The latents that each path goes from and to."""
    inputs = inputs_at(snapshot, sampling, range(count))
    return inputs.z.double(), inputs.z_mix.double()


def test_interpolation_is_the_published_one():
    a, b, t = fixture("z0"), fixture("z1"), fixture("t")[:, None]
    for step, suffix in ((0.0, ""), (1e-4, "_eps1e-4")):
        on_sphere = torch.nn.functional.normalize(slerp(a, b, t + step))
        torch.testing.assert_close(on_sphere, fixture(f"slerp_t{suffix}"), rtol=0, atol=1e-12)
        torch.testing.assert_close(lerp(a, b, t + step), fixture(f"lerp_t{suffix}"), rtol=0, atol=1e-12)


def test_rejection_is_the_published_one():
    found = trimmed(fixture("dists").numpy())
    assert found.value == pytest.approx(float(fixture("filtered_mean")), rel=1e-12)


def test_the_error_is_how_far_means_of_other_samples_are_off():
    rng = np.random.default_rng(0)
    found = [trimmed(rng.exponential(size=300)) for _ in range(400)]
    assert np.mean([f.error for f in found]) == pytest.approx(np.std([f.value for f in found]), rel=0.1)


@pytest.mark.parametrize("part", ["full", "end"])
def test_in_w_an_affine_network_is_as_long_as_its_matrix_makes_the_way(part):
    matrix = torch.linspace(-1, 1, 4 * DIM).view(4, DIM).double()
    snapshot, sampling = simple(lambda w: w.double() @ matrix.T + 3), Sampling(seed=5)
    found = path_length(snapshot, squared, 40, Paths("w", part, epsilon=1e-3), sampling)
    a, b = ends(snapshot, 40, sampling)
    np.testing.assert_allclose(found.lengths, ((b - a) @ matrix.T).square().sum(dim=1), rtol=5e-3)


@pytest.mark.parametrize("part", ["full", "end"])
def test_in_z_it_is_as_long_as_the_arc(part):
    """A circle of radius r by an angle omega: (r omega)^2, and r^2 = z_dim, the mean square length of z."""
    snapshot, sampling = simple(lambda w: w.double()), Sampling(seed=1)
    found = path_length(snapshot, squared, 40, Paths("z", part, epsilon=1e-3), sampling)
    a, b = ends(snapshot, 40, sampling)
    omega = torch.nn.functional.cosine_similarity(a, b).acos()
    np.testing.assert_allclose(found.lengths, DIM * omega.square(), rtol=5e-3)


def test_end_is_the_beginning_of_the_path_and_full_is_anywhere_on_it():
    """The squared speed of exp(w) is a convex function of t, so nowhere is it above both ends."""
    snapshot, sampling = simple(lambda w: w.double().exp()), Sampling()
    a, b = ends(snapshot, 60, sampling)
    end, full = (path_length(snapshot, squared, 60, Paths("w", part), sampling).lengths for part in ("end", "full"))
    at_a, at_b = ((w.exp() * (b - a)).square().sum(dim=1).numpy() for w in (a, b))
    np.testing.assert_allclose(end, at_a, rtol=0.03)
    assert (full < 1.03 * np.maximum(at_a, at_b)).all()
    assert ((np.abs(full / at_a - 1) > 0.05) & (np.abs(full / at_b - 1) > 0.05)).mean() > 0.7


def test_a_path_is_the_same_in_any_batch_and_in_longer_measurements(tiny_network):
    snapshot = tiny_network()
    distance = pick_distance("discriminator", snapshot)
    for paths in (Paths("w", "full"), Paths("z", "end")):
        one, other = (
            path_length(snapshot, distance, n, paths, Sampling(batch=batch)).lengths for n, batch in ((7, 3), (5, 4))
        )
        assert np.array_equal(one[:5], other) and (one > 0).all()
        again = path_length(snapshot, distance, 5, paths, Sampling(seed=1)).lengths
        assert not np.isclose(again, other).any()


def test_paths_in_batches_are_as_long(tiny_network):
    one = tiny_network()
    many = replace(one, execution=Execution(batched=True))
    distance, paths = pick_distance("discriminator", one), Paths(epsilon=0.03)  # a step that is large beside rounding
    expected, found = (path_length(s, distance, 7, paths, Sampling(batch=3)).lengths for s in (one, many))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_both_pictures_of_a_path_have_the_same_noise_and_each_path_another():
    seen_noise = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen_noise.append(float(a[0, 0, 0, 0]))
        return squared(a, b)

    found = path_length(simple(lambda w: 0 * w, noise=10.0), distance, 6)
    assert not found.lengths.any() and len(set(seen_noise)) == 6


def test_both_ends_are_of_one_class_which_are_as_frequent_as_in_the_data():
    classes = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        classes.append((int(a[0, 0, 0, 0]), int(b[0, 0, 0, 0])))
        return squared(a, b)

    snapshot = simple(lambda w: (w / 1000).round(), classes=4)
    snapshot.renderer.map = lambda z, c, *, psi: (0 * z + 1000 * c[:, None])[:, None]
    path_length(snapshot, distance, 60, sampling=Sampling(labels=np.array([0, 3, 3, 3])))
    assert all(a == b for a, b in classes) and {a for a, _ in classes} == {0, 3}
    assert 0.6 < np.mean([a == 3 for a, _ in classes]) < 0.9
    with pytest.raises(UserError, match="class 7, and the network 0 to 3"):
        path_length(snapshot, distance, 5, sampling=Sampling(labels=np.array([7])))


def test_what_the_distance_is_shown():
    images = torch.arange(32.0)[:, None] * 100 + torch.arange(32.0)
    cropped = seen(images[None, None], Paths(crop=True))[0, 0]
    assert torch.equal(cropped, images[12:28, 8:24])
    large = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(seen(large, Paths())[0, :, 0, 0], large[0, :, :2, :2].mean(dim=(1, 2)))
    assert seen(large, replace(Paths(), largest=0)) is large
    assert seen(large, Paths(crop=True)).shape == (1, 3, 256, 256)
    assert seen(torch.rand(1, 1, 300, 200), Paths()).shape == (1, 1, 300, 200)


def test_names_say_what_was_measured_and_with_what():
    assert paths_of("zend", "lpips-vgg16", crop=True) == Paths("z", "end", crop=True)
    assert paths_of("wfull", "discriminator").largest == 0
    with pytest.raises(UserError, match="whole images only"):
        paths_of("wfull", "discriminator", crop=True)


def test_what_has_no_path_length(tiny_network, without_w):
    snapshot = tiny_network()
    with pytest.raises(UserError, match="no mean length"):
        path_length(snapshot, PIXELS, 1)
    with pytest.raises(UserError, match="3 of 3 path lengths are no numbers"):
        path_length(snapshot, lambda a, b: torch.full((len(a),), torch.nan), 3)
    with pytest.raises(UserError, match="ProGAN has no w"):
        path_length(without_w(), PIXELS, 3)
