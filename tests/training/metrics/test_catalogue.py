"""Names of metrics mean what they say."""

from __future__ import annotations

import re

import pytest

from torch_utils.errors import UserError
from training.metrics import quality
from training.metrics.catalogue import KINDS, parse, parse_names
from training.metrics.request import Request


@pytest.mark.parametrize(("name", "measure", "request_"), [
    ("fid50k_full", quality.measure_fid, Request("fid50k_full", 50_000, 0, True)),
    ("fid50k", quality.measure_fid, Request("fid50k", 50_000)),
    ("kid500_full", quality.measure_kid, Request("kid500_full", 500, 0, True)),
    ("pr50k3_full", quality.measure_precision_recall, Request("pr50k3_full", 50_000, 3, True)),
    ("pr5003_full", quality.measure_precision_recall, Request("pr5003_full", 500, 3, True)),
    ("dc5k_full", quality.measure_density_coverage, Request("dc5k_full", 5000, 5, True)),
    ("is50k", quality.measure_inception_score, Request("is50k", 50_000)),
    ("swd16k", quality.measure_swd, Request("swd16k", 16_000)),
    ("msssim10k", quality.measure_ms_ssim, Request("msssim10k", 10_000)),
    ("fid5k_full-effnetlite0", quality.measure_fid, Request("fid5k_full", 5000, 0, True, "efficientnet-lite0")),
    ("kid5k-inception", quality.measure_kid, Request("kid5k", 5000, features="inception-2015-12-05")),
])  # fmt: skip
def test_what_names_mean(name, measure, request_):
    kind, found = parse(name)
    assert (kind.measure, found) == (measure, request_)


@pytest.mark.parametrize(
    "name", ["fid", "fid0_full", "fid5m", "fod5k_full", "pr5k_full", "is5k_full", "swd5k-inception", ""]
)
def test_other_names_get_the_list(name):
    with pytest.raises(UserError, match="there is no metric .* there are fid50k_full, kid50k_full, .*swd16k"):
        parse(name)


def test_unknown_features_and_no_names():
    with pytest.raises(UserError, match="no features 'vgg'; they are effnetlite0, inception, lpips"):
        parse("kid5k-vgg")
    with pytest.raises(UserError, match="no metric is named"):
        parse_names(" ,")
    assert parse_names("fid5k_full, kid5k") == ["fid5k_full", "kid5k"]


def test_every_example_is_of_its_own_kind_alone():
    for kind in KINDS:
        assert [other for other in KINDS if re.fullmatch(other.pattern, kind.example)] == [kind]
