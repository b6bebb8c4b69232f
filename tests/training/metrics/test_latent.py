"""Metrics of latents, as they are asked for by name."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan.editing.directions import Directions, save_directions
from torch_utils.errors import UserError
from training.attributes import load_classifier
from training.data.archive import Archive
from training.metrics.context import Aids, Context
from training.metrics.evaluate import evaluate


@pytest.fixture
def table(tinted, tmp_path) -> Path:
    with open(tmp_path / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "warm", "bright"])
        writer.writerows([Path(name).name, i % 2, i // 2 % 2] for i, name in enumerate(Archive.open(tinted).names))
    return tmp_path / "table.csv"


def refused(name: str, context: Context) -> str:
    faults: dict[str, str] = {}
    assert not list(evaluate([name], context, faults.__setitem__))
    return faults[name]


@pytest.mark.parametrize("part", ["zfull", "wfull", "zend", "wend"])
def test_path_lengths_by_name(context, part, measured) -> None:
    found = measured(f"ppl20_{part}-pixels", context)
    assert set(found) == {f"ppl20_{part}-pixels", f"ppl20_{part}-pixels_error"}
    assert found[f"ppl20_{part}-pixels"] > 0


def test_a_distance_that_is_not_to_be_had_names_one_that_is(context, monkeypatch, measured) -> None:
    def nowhere(*arguments: object) -> None:
        raise UserError("no weights")

    monkeypatch.setattr("stylegan.projection.distance.find_weights", nowhere)
    assert refused("ppl20_wend", context) == "no weights; ppl20_wend-discriminator needs none"
    measured("ppl20_wend-discriminator", context)


def test_a_table_teaches_a_classifier_once(context, table) -> None:
    aids = Aids(table=table)
    first = replace(context, aids=aids).classifier
    kept = list(Path(table.parent / "cache" / "classifiers").iterdir())
    assert len(kept) == 1
    assert load_classifier(kept[0]).scope == first.scope
    stamp = kept[0].stat().st_mtime_ns
    again = replace(context, aids=aids).classifier
    assert kept[0].stat().st_mtime_ns == stamp
    assert again.scope.names == ("warm", "bright")
    assert min(again.scope.accuracy) > 0.9


def test_separability_dci_and_purity_by_name(context, table, tmp_path, measured) -> None:
    said: list[str] = []
    directions = tmp_path / "some.direction.safetensors"
    vectors = torch.eye(2, 8)[:, None]
    layers = (tuple(range(context.snapshot.config.num_ws)),) * 2
    two = Directions(vectors, ("a", "b"), layers, torch.ones(2), "by hand", torch.full((2,), torch.nan), torch.zeros(2))
    save_directions(directions, two, context.snapshot)
    context = replace(context, aids=Aids(table=table, directions=directions, say=said.append))
    found = measured("ls60", context)
    assert {"ls60_z", "ls60_w", "ls60_w_heldout", "bits_z_warm", "bits_w_warm_heldout"} <= set(found)
    assert "one answer: bright" in said[0] and "bits_w_bright" not in found
    assert found["ls60_w"] == pytest.approx(2 ** found["bits_w_warm"])
    assert set(measured("dci60", context)) == {
        f"dci60_{space}_{what}" for space in "zw" for what in ("disentanglement", "completeness", "informativeness")
    }
    assert {"purity10", "purity10_a", "purity10_b"} == set(measured("purity10", context))
    assert "separability" in said[0] and "purity" in said[1]


def test_what_is_missing_is_asked_for(context) -> None:
    assert "--classifier FILE of directions.py learn, or --labels CSV" in refused("ls60", context)
    assert "--directions FILE of directions.py find" in refused("purity10", context)
    assert "has no discriminator" in refused("overfit40", replace(context, source=replace(context.snapshot, D=None)))
