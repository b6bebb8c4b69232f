"""No metric has a name that says more than what was measured, and what cannot be had is refused before any work."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from training.data.archive import Archive, ArchiveWriter
from training.metrics.context import Context
from training.metrics.evaluate import append, evaluate, table
from training.metrics.feature_store import Compute
from training.metrics.quality import agreement, radii
from training.metrics.registry import parse, require_possible
from training.metrics.requirements import Subject

STYLEGAN = StyleGAN1Config(resolution=64)
EFF = "efficientnet-lite0"


def refusal(name: str, features: str = EFF, **about: object) -> str:
    """Why a metric is refused for 3 real images of 64x64 and a StyleGAN, or for others; "" if it is not."""
    subject = replace(Subject(STYLEGAN, (64, 64), reals=3, data="few.zip"), **about)
    try:
        require_possible(*parse(name, features), subject)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "message"), [
    ("kid50", "it takes 50 real images and few.zip has 3; ask for kid3, or kid50_full for all of them"),
    ("pr50_2", "it takes 50 real images and few.zip has 3; ask for pr3_2, or pr50_2_full for all of them"),
    ("pr1k2", "ask for pr3_2, or pr1k2_full for all of them"),
    ("pr50_3", "it takes 50 real images and few.zip has 3; give more of them"),
    ("dc50", "it takes 50 real images and few.zip has 3; give more of them"),
    ("swd50", "it takes 50 real images and few.zip has 3; ask for swd3"),
    ("diversity9", "it takes 9 real images and few.zip has 3; ask for diversity3"),
    ("overfit8", "it takes 8 real images and few.zip has 3"),
    ("pr50_3_full", "none of 3 real images has 3 neighbours; give more data"),
    ("dc50_full", "none of 3 real images has 5 neighbours; give more data"),
    ("fid5k_full", "3 reals are too few for the covariance of 1280 features"),
    ("nearest50", "the nearest 5 of more than 5 real images; few.zip has 3 images"),
])  # fmt: skip
def test_a_name_is_refused_if_there_are_fewer_images_or_neighbours_than_it_says(name, message):
    assert message in refusal(name)


@pytest.mark.parametrize(
    "name", ["kid50_full", "kid3", "pr50_2_full", "pr3_2", "is50", "msssim50", "swd3", "ppl9_wend"]
)
def test_what_it_says_can_be_measured_is_not_refused(name):
    assert refusal(name) == ""
    assert refusal(name, reals=None, data="") == ""  # without data it is refused elsewhere


def test_mirror_images_count_where_they_are_compared_with():
    assert refusal("kid6", mirror=True) == "" and "few.zip has 6" in refusal("kid7", mirror=True)
    assert "few.zip has 3" in refusal("diversity4", mirror=True)  # pairs of plain images


@pytest.mark.parametrize(("name", "message", "about"), [
    ("fid500_full", "500 fakes are too few for the covariance of 1280 features", {"reals": 9000}),
    ("fid500_full-inception", "covariance of 2048 features", {"reals": 9000}),
    ("is5", "it takes 10 images or more", {}),
    ("kid1", "it takes 2 images or more", {}),
    ("kid50_full", "it takes 2 real images or more, and few.zip has 1", {"reals": 1}),
    ("is50-lpips-alex", "lpips-alex tells no classes", {}),
    ("swd3", "swd takes patches of images of at least 16 pixels", {"size": (8, 8)}),
    ("msssim9", "ms-ssim needs images of at least 16 pixels", {"size": (8, 8)}),
    ("ppl9_wfull", "ProGAN has no w", {"config": ProGANConfig(resolution=64)}),
    ("ppl9_wend-discriminator", "DCGAN has no w", {"config": DCGANConfig(resolution=64)}),
    ("ls100", "ProGAN has no w", {"config": ProGANConfig(resolution=64)}),
    ("purity100", "DCGAN has no w", {"config": DCGANConfig(resolution=64)}),
    ("overfit8", "has no discriminator; give a snapshot of a run", {"reals": 9, "discriminator": False}),
    ("ppl9_wend-discriminator", "has no discriminator", {"discriminator": False}),
    ("ppl9_wend", "differ in the fifth digit, which bf16 rounds away; leave --precision out", {"precision": "bf16"}),
    ("diversity3-discriminator", "has no discriminator", {"discriminator": False}),
    ("overfit7", "groups of 4 images, two or more of them; ask for overfit500", {"reals": 600}),
    ("kid50_full", "50 generated images and there are 9; ask for kid9_full$", {"config": None, "fakes": 9}),
    ("msssim9", "18 generated images and there are 9; ask for msssim4$", {"config": None, "fakes": 9}),
    ("ppl9_wend", "of a network, not of images in files; give --network", {"config": None, "fakes": 90}),
])  # fmt: skip
def test_what_a_network_or_images_cannot_have(name, message, about):
    with pytest.raises(UserError, match=message):
        require_possible(*parse(name, EFF), replace(Subject(STYLEGAN, (64, 64), reals=3, data="few.zip"), **about))


def test_paths_in_z_need_no_w():
    assert refusal("ppl9_zfull", config=ProGANConfig(resolution=64)) == ""


def test_neighbours_that_do_not_exist_are_not_replaced_by_others():
    rows = torch.randn(4, 2)
    assert len(radii(rows, 3)) == 4
    for k in (0, 4, 9):
        with pytest.raises(UserError, match=f"none of 4 images has {k} neighbours"):
            radii(rows, k)
    with pytest.raises(UserError, match="none of 4 images has 5 neighbours"):
        agreement(torch.randn(40, 2), rows, 5)


def test_more_images_than_anybody_has_time_for():
    with pytest.raises(UserError, match="too many images; metrics take up to 10,000,000"):
        parse("kid1000000000000")


def test_every_line_says_how_many_images_it_is_of(tiny_network, corners, tmp_path):
    with ArchiveWriter(tmp_path / "seven.zip") as writer:
        for i in range(7):
            writer.add(torch.full((16, 16, 3), 30 * i, dtype=torch.uint8).numpy())
    compute = Compute(torch.device("cpu"), quiet=True)
    context = Context(tiny_network(), Archive.open(tmp_path / "seven.zip"), corners, compute=compute)
    names = ["kid20_full", "kid7", "pr20_3_full", "msssim8", "nearest6", "diversity6-pixels", "kid20", "dc7"]
    refused: dict[str, str] = {}
    found = {r.metric: r for r in evaluate(names, context, refused.__setitem__)}
    assert list(refused) == ["kid20"] and "seven.zip has 7; ask for kid7, or kid20_full" in refused["kid20"]
    told = {name.partition("-")[0]: (r.num_images, r.num_reals) for name, r in found.items()}
    assert told == {"kid20_full": (20, 7), "kid7": (7, 7), "pr20_3_full": (20, 7), "msssim8": (16, 0),
                    "nearest6": (6, 7), "diversity6": (6, 6), "dc7": (7, 7)}  # fmt: skip
    line = json.loads(append(tmp_path, found["kid20_full-corners-embed"]).read_text())
    assert (line["num_images"], line["num_reals"]) == (20, 7)
    assert all(
        line.endswith("  20 generated, 7 real") for line in table([found["kid20_full-corners-embed"]]).split("\n")
    )
