"""A network is measured by name, each number says how, and what cannot be measured does not stop the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.features import weights
from torch_utils.errors import UserError
from training.data.archive import Archive
from training.metrics.context import Aids, Context
from training.metrics.evaluate import aids_of, append, evaluate, in_words, measure, table
from training.metrics.feature_store import Compute
from training.metrics.registry import parse

ALL = ["fid100_full", "kid100_full", "pr100_3_full", "dc100_full", "swd30", "msssim20"]


@pytest.fixture
def context(snapshot, corners, images) -> Context:
    return Context(
        snapshot, Archive.open(images), corners, compute=Compute(torch.device("cpu"), quiet=True), file="net"
    )


def offline(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
    raise UserError("could not download it")


def never(name: str, reason: str) -> None:
    raise AssertionError(f"{name}: {reason}")


def test_every_metric_measures_and_names_its_features(context):
    found = {name: value for r in evaluate(ALL, context, never) for name, value in r.results.items()}
    of = "-corners-embed"
    assert set(found) == {
        f"fid100_full{of}", f"kid100_full{of}", f"kid100_full{of}_error", f"pr100_3_full{of}_precision",
        f"pr100_3_full{of}_recall", f"dc100_full{of}_density", f"dc100_full{of}_coverage", "swd30", "swd30_16",
        "msssim20", "msssim20_error",
    }  # fmt: skip
    assert all(np.isfinite(list(found.values()))) and found[f"fid100_full{of}"] > 0


def test_a_line_holds_all_that_it_takes_to_repeat_it(context, tmp_path):
    (result,) = evaluate(["kid100_full"], context, never)
    path = append(tmp_path / "new", result)
    append(tmp_path / "new", result)
    assert path.name == "metric-kid100_full-corners-embed.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 and lines[0] == lines[1]
    line = lines[0]
    assert {"results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"} <= set(line)
    assert (line["seed"], line["psi"], line["num_images"], line["features"]) == (0, 1.0, 100, "corners-embed")
    assert len(line["features_sha256"]) == 64 and len(line["data_hash"]) == 64 and len(line["network"]) == 16
    (again,) = evaluate(["kid100_full"], replace(context), never)
    assert again.results == result.results
    (other,) = evaluate(["kid100_full"], replace(context, seed=1), never)
    assert other.results != result.results


def test_what_cannot_be_measured_is_skipped_in_a_line(context, monkeypatch):
    monkeypatch.setattr(weights, "download", offline)
    faults: dict[str, str] = {}
    names = ["fid12_full", "is50", "kid30", "kid30-inception"]
    found = list(evaluate(names, context, faults.__setitem__))
    assert [result.metric for result in found] == ["kid30-corners-embed"]
    assert "too few for the covariance of 12 features" in faults["fid12_full"] and "kid12_full" in faults["fid12_full"]
    assert "tells no classes" in faults["is50"] and "is not here" in faults["kid30-inception"]
    with pytest.raises(UserError, match="no metric 'fud'"):
        next(evaluate(["kid30", "fud"], context, never))


def test_no_data_is_needed_where_none_is_compared(context):
    faults: dict[str, str] = {}
    found = list(evaluate(["msssim4", "kid30"], replace(context, data=None), faults.__setitem__))
    assert [result.metric for result in found] == ["msssim4"] and "give --data" in faults["kid30"]


def test_classes_are_drawn_as_often_as_the_data_has_them(context):
    assert np.array_equal(context.sampling.labels, context.data.labels)


def test_the_table_and_times_are_readable(context):
    (result,) = evaluate(["msssim4"], context, never)
    lines = table([result]).splitlines()
    assert [line.split()[0] for line in lines] == ["msssim4", "msssim4_error"]
    assert [in_words(s) for s in (44.6, 185, 4360)] == ["45s", "3m 05s", "1h 12m 40s"]


def test_what_is_no_number_is_refused(context):
    kind, request = parse("msssim4")
    for value in (float("nan"), float("inf")):
        broken = replace(kind, measure=lambda context, request, value=value: {"msssim4": value})
        with pytest.raises(UserError, match="msssim4 is not a number"):
            measure(broken, request, context)
    partly = replace(kind, measure=lambda context, request: {"all": 0.5, "one": float("nan")})
    assert measure(partly, request, context).results == {"all": 0.5}


def test_some_reals_are_chosen_by_the_seed_from_all(context):
    every, some = context.of_reals()[:1000], context.of_reals(20)[:20]
    assert all((every == row).all(dim=1).any() for row in some) and not torch.equal(some, every[:20])
    assert torch.equal(some, replace(context).of_reals(20)[:20])
    assert not torch.equal(some, replace(context, seed=1).of_reals(20)[:20])


def test_a_line_names_the_files_and_counts_what_was_drawn(context, images, tmp_path):
    found = {r.metric: r for r in evaluate(["pr30_3", "msssim4", "swd30", "overfit8"],
             replace(context, compute=replace(context.compute, processes=2),
                     aids=Aids(validation=Archive.open(images))), never)}  # fmt: skip
    pr, overfit = found["pr30_3-corners-embed"], found["overfit8"]
    assert (pr.k, pr.num_gpus, pr.num_images, pr.aids) == (3, 2, 30, {})
    assert found["msssim4"].num_images == 8 and found["swd30"].num_images == found["swd30"].num_reals == 30
    assert overfit.num_gpus == 1
    assert overfit.aids == {"val": str(images), "val_hash": Archive.open(images).content_hash}
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(b"abc")
    aids = aids_of(parse("ls")[0], replace(context, aids=Aids(classifier=path, crop=True)))
    assert aids == {"classifier": str(path), "classifier_sha256": hashlib.sha256(b"abc").hexdigest()}


def test_the_fakes_of_a_class_are_of_that_class(tiny_network):
    context = Context(tiny_network(num_classes=3), compute=Compute(torch.device("cpu"), quiet=True))
    one = [replace(context, c=c).fakes.read(0, 4, 4) for c in range(3)]
    assert not torch.equal(one[0], one[1]) and not torch.equal(one[1], one[2])
    assert replace(context, c=2).sampling.labels.tolist() == [2]
