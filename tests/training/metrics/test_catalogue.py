"""Names of metrics mean what they say."""

from __future__ import annotations

import re

import pytest

from torch_utils.errors import UserError
from training.metrics import registry as health
from training.metrics import registry as latent
from training.metrics import registry as quality
from training.metrics.context import Request
from training.metrics.registry import KINDS, parse, parse_names

EFF, VGG = "efficientnet-lite0", "lpips-vgg16"


@pytest.mark.parametrize(("name", "measure", "title", "request_"), [
    ("fid50k_full", quality.measure_fid, "-effnetlite0", (50_000, 0, True, "", EFF)),
    ("fid50k", quality.measure_fid, "-effnetlite0", (50_000, 0, False, "", EFF)),
    ("kid500_full", quality.measure_kid, "-effnetlite0", (500, 0, True, "", EFF)),
    ("pr50k3_full", quality.measure_precision_recall, "-effnetlite0", (50_000, 3, True, "", EFF)),
    ("pr500_3_full", quality.measure_precision_recall, "-effnetlite0", (500, 3, True, "", EFF)),
    ("pr200_12", quality.measure_precision_recall, "-effnetlite0", (200, 12, False, "", EFF)),
    ("dc5k_full", quality.measure_density_coverage, "-effnetlite0", (5000, 5, True, "", EFF)),
    ("is50k", quality.measure_inception_score, "-effnetlite0", (50_000, 0, False, "", EFF)),
    ("swd16k", quality.measure_swd, "", (16_000, 0, False, "", "")),
    ("msssim10k", quality.measure_ms_ssim, "", (10_000, 0, False, "", "")),
    ("kid5k-inception", quality.measure_kid, "", (5000, 0, False, "", "inception-2015-12-05")),
    ("ppl_wfull", latent.measure_path_length, "", (50_000, 0, False, "wfull", VGG)),
    ("ppl1k_zend-discriminator", latent.measure_path_length, "-discriminator",
     (1000, 0, False, "zend", "discriminator")),
    ("ls", latent.measure_separability, "", (200_000, 0, False, "", "")),
    ("ls2k", latent.measure_separability, "", (2000, 0, False, "", "")),
    ("nearest64", health.measure_nearest, "-effnetlite0", (64, 0, True, "", EFF)),
])  # fmt: skip
def test_what_names_mean(name, measure, title, request_):
    kind, found = parse(name)
    plain = name.partition("-")[0]
    assert (kind.measure, found) == (measure, Request(plain, plain + title, *request_))


def test_features_of_the_users_own_are_named_after_their_file():
    for features, short in (
        ("nets/my net.pt", "my-net"), ("mine:embed", "mine-embed"), ("inception.pt", "inception-own"),
        ("nets/effnetlite0.pt", "effnetlite0-own"), ("lpips-alex.pt", "lpips-alex-own"),
    ):  # fmt: skip
        assert parse("kid5k", features)[1] == Request("kid5k", f"kid5k-{short}", 5000, features=features)


@pytest.mark.parametrize(
    "name", ["fid", "fid0_full", "fid5m", "fod5k_full", "pr_3", "is5k_full", "swd5k-inception", "ppl_w", "ls0", ""]
)
def test_other_names_get_the_list(name):
    with pytest.raises(UserError, match="there is no metric .* there are fid50k_full, kid50k_full, .*swd16k"):
        parse(name)


def test_two_spellings_are_one_metric():
    assert parse("pr50k_3_full") == parse("pr50k3_full") and parse("pr50k_3")[1].title == "pr50k3-effnetlite0"


@pytest.mark.parametrize(("name", "message"), [
    ("pr200", "pr200 does not say how many neighbours; write pr200_3 for 3$"),
    ("pr5003_full", "write pr5003_3_full for 3, or pr500_3_full$"),
    ("pr5k_full", "write pr5k_3_full for 3$"),
    ("pr3_3", "none of 3 images has 3 neighbours"),
    ("dc5", "none of 5 images has 5 neighbours"),
])  # fmt: skip
def test_neighbours_are_said_and_there(name, message):
    with pytest.raises(UserError, match=message):
        parse(name)


def test_unknown_features_and_no_names():
    with pytest.raises(UserError, match="no features 'vgg'; there are effnetlite0, inception, lpips"):
        parse("kid5k-vgg")
    with pytest.raises(UserError, match="no metric is named"):
        parse_names(" ,")
    assert parse_names("fid5k_full, kid5k") == ["fid5k_full", "kid5k"]


def test_who_mistypes_a_name_is_told_names_that_can_be_typed():
    with pytest.raises(UserError, match="there is no metric 'ppl_wened'; there are fid50k_full, ") as raised:
        parse("ppl_wened")
    listed = str(raised.value).partition("there are ")[2].partition(", each with")[0].split(", ")
    assert {"ppl50k_zfull", "ppl50k_wend", "ls200k", "pr50k3_full"} < set(listed) and len(listed) == len(KINDS) + 3
    for name in listed:
        other = re.sub(r"\d+k?", "500_" if name.startswith("pr5") else "500", name, count=1)
        assert parse(other)[1].count == 500 and parse(name.replace("_full", ""))
    with pytest.raises(UserError) as raised:
        parse("x" * 10_000)
    assert len(str(raised.value)) < 500


def test_every_example_is_of_its_own_kind_alone():
    for kind in KINDS:
        assert [other for other in KINDS if re.fullmatch(other.pattern, kind.example)] == [kind]
