"""Seeds, latent files and photographs become latents that give the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan.latents.latents import SUFFIX, Latents, save_latents
from stylegan.latents.render import Sources, View, classes_of, gather
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from tests.stylegan.tiny import TINY, view_of
from torch_utils.errors import UserError

CONDITIONAL = replace(TINY, num_classes=3, channels=1)


@pytest.mark.parametrize("how", [{}, {"psi": 0.4, "cutoff": 2}, {"noise_mode": "random"},
                                  {"noise_mode": "none", "resolution": 8}])  # fmt: skip
def test_seeds_are_the_images_that_they_always_are(how):
    view = view_of(**how)
    latents = gather((3, 17, 4), view)
    expected = view.render([3, 17, 4])
    assert torch.equal(view.draw(latents), expected) and torch.equal(view.draw(latents[1:2]), expected[1:2])
    assert (latents.names[1], latents.origins[1], latents.psi) == ("seed0017", "seed 17", view.psi)


def test_progan_too(tmp_path):
    view = view_of(ProGANConfig(resolution=16, z_dim=8, fmap_max=16))
    assert torch.equal(view.draw(gather((3, 4), view)), view.render([3, 4]))


@pytest.mark.parametrize("cfg", [replace(TINY, noise=False), ProGANConfig(resolution=16, z_dim=8, fmap_max=16)])
def test_a_network_without_noise_is_drawn_alike_in_every_noise_mode(cfg):
    expected = view_of(cfg).render([3, 4])
    for mode in ("random", "none"):
        view = view_of(cfg, noise_mode=mode)
        assert torch.equal(view.draw(gather((3, 4), view)), expected) and torch.equal(view.render([3, 4]), expected)


def test_classes_are_needed_for_seeds_only(tmp_path):
    view, path = view_of(CONDITIONAL), tmp_path / f"a{SUFFIX}"
    latents = gather((4, 5), view, classes=(0, 2))
    assert latents.c is not None and latents.c.tolist() == [0, 2]
    assert torch.equal(view.draw(latents), view.render([4, 5], torch.tensor([0, 2])))
    save_latents(path, latents, view.snapshot)
    assert torch.equal(gather((path,), view).ws, latents.ws)
    with pytest.raises(UserError, match="3 classes"):
        gather((path, 4), view)


def test_latent_files_keep_their_rows_their_truncation_and_their_noise(tmp_path):
    view, path = view_of(psi=1.0), tmp_path / f"a{SUFFIX}"
    latents = gather((4, 5), view_of(psi=0.5))
    maps = tuple(torch.randn(2, 1, h, w) for h, w in view.snapshot.config.noise_shapes(16))
    save_latents(path, replace(latents, noise=maps), view.snapshot)
    found = gather((3, path, 4), view)
    assert found.names == ("seed0003", "seed0004", "seed0005", "seed0004") and found.psi is None
    images = view.draw(found)
    assert torch.equal(images[[0, 3]], view.render([3, 4]))  # the network's own noise, as nothing else was said
    assert torch.equal(images[1:3], view.snapshot.renderer.draw(latents.ws, maps))
    assert not torch.equal(images[1], view.snapshot.renderer.draw(latents.ws)[0])
    assert torch.equal(view.draw(found, batch=1), images)


def test_noise_maps_of_another_resolution_are_an_error(tmp_path):
    view = view_of()
    maps = tuple(torch.zeros(1, 1, h, w) for h, w in view.snapshot.config.noise_shapes(8))
    latents = replace(gather((4,), view), noise=maps)
    with pytest.raises(UserError, match="seed 4.*--noise-mode none"):
        view.draw(latents)
    assert view.snapshot.stage == Stage(16)
    assert view_of(resolution=8).draw(latents).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_are_the_whole_in_parts(tmp_path, batch):
    view, path = view_of(), tmp_path / f"a{SUFFIX}"
    save_latents(path, gather((7, 8, 9), view), view.snapshot)
    points = (1, 2, path, 7)
    sources = Sources.of(points, view)
    parts = list(sources.batches(batch))
    assert max(map(len, parts)) <= batch
    assert torch.equal(torch.cat([part.ws for part in parts]), gather(points, view).ws)
    assert sources.names == ["seed0001", "seed0002", "seed0007", "seed0008", "seed0009", "seed0007-2"]


def test_photographs_go_to_the_one_who_projects(tmp_path):
    view = view_of()
    for name in ("eva.png", "tom.png"):
        (tmp_path / name).touch()
    eva, tom = tmp_path / "eva.png", tmp_path / "tom.png"

    def project(paths: object, given: View, classes: Sequence[int]) -> Latents:
        assert paths == [tom, eva] and given is view and not classes
        return replace(gather((21, 22), view), names=("tom", "eva"))

    found = gather((tom, 3, eva, tom), view, project=project)
    assert found.names == ("tom", "seed0003", "eva", "tom")
    assert torch.equal(found.ws, gather((21, 3, 22, 21), view).ws)
    with pytest.raises(UserError, match=r"tom.png is a photograph: find its latents with project.py"):
        gather((3, tom), view)
    with pytest.raises(UserError, match=r"no photograph .*no.png"):
        gather((tmp_path / "no.png",), view, project=project)


def test_each_seed_and_each_photograph_has_its_class():
    eva, tom, file = Path("eva.png"), Path("tom.png"), Path("a.latent.safetensors")
    points = (5, eva, file, tom, 7)
    assert classes_of(points, [0, 1, 2], 3) == [2, 0, None, 1, 1]  # by the seed; photographs by their order
    assert classes_of(points, [2, 0, 1, 2], 3, each=True) == [2, 0, None, 1, 2]
    assert classes_of(points, [1], 3, each=True) == [1, 1, None, 1, 1] and classes_of(points, [], 0) == [None] * 5
    assert classes_of((file,), [], 3) == [None]
    for asked, number, says in (
        ([0, 1], 3, "--row-class: there are 2 classes for 4 seeds"), ([], 3, "--row-class, 0 to 2"),
        ([0], 0, "--row-class: this network is unconditional"), ([3], 3, "--row-class"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            classes_of(points, asked, number, True, "--row-class")


def test_a_photograph_of_two_classes_is_projected_for_each(tmp_path):
    view, eva = view_of(CONDITIONAL), tmp_path / "eva.png"
    eva.touch()

    def project(paths: Sequence[Path], given: View, classes: Sequence[int]) -> Latents:
        assert list(paths) == [eva, eva] and list(classes) == [2, 0]
        return gather((21, 22), view, (0, 2))

    found = gather((eva, 4, eva, eva), view, (2, 1, 0, 2), project=project, each=True)
    assert found.c is not None and found.c.tolist() == [2, 1, 0, 2]


def test_a_seed_in_each_class_is_the_image_of_that_class(tmp_path):
    view = view_of(CONDITIONAL)
    view = replace(view, snapshot=replace(view.snapshot, class_names=("cat", "sea lion/seal")))
    file = tmp_path / "a.latent.safetensors"
    save_latents(file, gather((9,), view, (1,)), view.snapshot)
    found = gather((5, file, 7), view, each_class=True)
    names = ["seed0005-cat", "seed0005-sea_lion_seal", "seed0005-class2", "seed0009",
             "seed0007-cat", "seed0007-sea_lion_seal", "seed0007-class2"]  # fmt: skip
    assert list(found.names) == names == Sources.of((5, file, 7), view, each_class=True).projected(None).names
    for c in range(3):
        assert torch.equal(found.ws[c], gather((5,), view, (c,)).ws[0])
    assert gather((5,), view, (2, "cat"), each_class=True).names == ("seed0005-class2", "seed0005-cat")
    with pytest.raises(UserError, match="--each-class: this network is unconditional"):
        gather((5,), view_of(), each_class=True)


def test_latents_of_another_network_are_refused_unless_forced(tmp_path):
    one, other, path = view_of(), view_of(seed=1), tmp_path / f"a{SUFFIX}"
    save_latents(path, gather((3,), one), one.snapshot)
    with pytest.raises(UserError, match="another network"):
        gather((path,), other)
    assert len(gather((path,), other, force=True)) == 1
