"""Samples of w, and how the chosen method gets them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.editing.directions import Directions, in_w, joined
from stylegan.editing.search import (
    AttributeClassifier,
    LabelledSamples,
    attribute_indices,
    by_difference,
    by_gradient,
    conditional_by_name,
    labelled_samples,
    require_channels,
    sample_w,
    unsupervised,
)
from stylegan.editing.settings import Labels, Search, parse_attributes
from stylegan.latents.render import View
from stylegan.networks.progan import ProGANConfig
from tests.stylegan.tiny import TINY, snapshot
from torch_utils.errors import UserError


class Answers:
    """Of brightness, as a probability, and of redness, as a quantity."""

    names, quantities = ("bright", "red"), (False, True)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.mean(dim=(1, 2, 3)) * 9, images[:, 0].mean(dim=(1, 2))], dim=1)

    def values(self, images: torch.Tensor) -> torch.Tensor:
        bright, red = self.scores(images).unbind(dim=1)
        return torch.stack([bright.sigmoid(), red], dim=1)


def classifier() -> AttributeClassifier:
    return Answers()


def test_samples_are_the_w_of_the_seeds_and_need_classes_where_there_are_some():
    snap = snapshot()
    found = torch.cat(list(sample_w(snap, range(300))))
    assert found.shape == (300, 8)
    torch.testing.assert_close(found[7:8], torch.cat(list(sample_w(snap, [7]))))
    with pytest.raises(UserError, match="3 classes"):
        list(sample_w(snapshot(replace(TINY, num_classes=3)), range(2)))
    with pytest.raises(UserError, match="ProGAN has no w"):
        list(sample_w(snapshot(ProGANConfig(resolution=16, z_dim=8, fmap_max=16)), range(2)))


@pytest.mark.parametrize(("search", "name"), [
    (Search(method="pca", count=2), "pc0"), (Search(method="sefa", count=2, layers=(1, 2)), "sefa0"),
    (Search(method="activations", count=2, layer=3), "layer3-pc0"),
])  # fmt: skip
def test_directions_without_labels_are_of_unit_length_and_say_how_they_were_found(search, name):
    found = unsupervised(replace(search, labels=Labels(samples=80)), snapshot())
    assert len(found) == 2 and found.names[0] == name and found.shares[0] >= found.shares[1] > 0
    torch.testing.assert_close(found.vectors.norm(dim=2), torch.ones(2, 1))
    assert found.layers[0] == ((1, 2) if search.layers else (0, 1, 2, 3, 4, 5))


def test_what_the_network_does_not_have_is_one_clear_line():
    with pytest.raises(UserError, match="--count must be at most 8"):
        unsupervised(Search(count=9), snapshot())
    with pytest.raises(UserError, match="no layer 6"):
        unsupervised(Search(method="activations", layer=6, count=2, labels=Labels(samples=9)), snapshot())
    with pytest.raises(UserError, match="has 112 channels, not 113"):
        require_channels(View.of(snapshot()), 113)
    require_channels(View.of(snapshot()), 112)
    with pytest.raises(UserError, match="no styles"):
        require_channels(View.of(snapshot(ProGANConfig(resolution=16, z_dim=8, fmap_max=16))), 1)


def test_a_classifier_labels_the_images_that_the_view_renders():
    view, known = View.of(snapshot(), psi=0.5), classifier()
    samples = labelled_samples(Labels(samples=70, attributes=parse_attributes("red,bright")), view, known, batch=3)
    assert samples.names == ("red", "bright") and samples.kinds == ("quantity", "probability")
    expected = known.values(view.render(range(70)).clamp(-1, 1)).double().numpy()
    np.testing.assert_array_equal(samples.values, expected[:, ::-1])
    torch.testing.assert_close(samples.w, torch.cat(list(sample_w(view.snapshot, range(70)))))
    with pytest.raises(UserError, match="'yaw'; choose from bright, red"):
        attribute_indices(Labels(attributes=parse_attributes("yaw")), known)


def test_a_file_labels_the_seeds_that_it_names(tmp_path: Path):
    (tmp_path / "a.csv").write_text("seed,smile,yaw\n5,1,0.3\n2,0,-4\n")
    view = View.of(snapshot())
    samples = labelled_samples(Labels(source=str(tmp_path / "a.csv")), view, None, batch=8)
    assert samples.names == ("smile", "yaw") and samples.kinds == ("truth", "quantity")
    torch.testing.assert_close(samples.w, torch.cat(list(sample_w(view.snapshot, [5, 2]))))


@pytest.mark.parametrize("resolution", [8, 16])
def test_channels_are_those_of_the_layers_that_are_rendered(resolution):
    view = View.of(snapshot(), resolution=resolution)
    w = torch.cat(list(sample_w(view.snapshot, range(60))))
    samples = LabelledSamples(w, ("has",), ("truth",), (w[:, :1] > w[:, :1].mean()).double().numpy())
    count = sum(TINY.style_dims(resolution))
    for found, effects in (
        by_difference(samples, view, count),
        by_gradient(Labels(samples=4, attributes=parse_attributes("red")), view, classifier(), count, 2),
    ):
        assert len(found) == len(effects) == count
        assert max(layer for layers in found.layers for layer in layers) == len(TINY.layers_at(resolution)) - 1
        assert [abs(effect) for effect in effects] == sorted(map(abs, effects), reverse=True)
    with pytest.raises(UserError, match="single attribute; choose one of bright, red"):
        by_gradient(Labels(samples=4), view, classifier(), 1, 2)


def test_a_conditional_direction_is_made_of_directions_by_their_names():
    def some(name: str, seed: int) -> Directions:
        vectors = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
        return in_w(vectors, [name], range(6), "test", torch.eye(8).double())

    both = joined([some("a", 0), some("b", 1)])
    assert conditional_by_name(both, "a", ["b"], snapshot(), ()).names == ("a without b",)
    with pytest.raises(UserError, match="no direction 'c'"):
        conditional_by_name(both, "a", ["c"], snapshot(), ())
