"""Collapse, copies and overfitting, as they are asked for by name."""

from __future__ import annotations

from dataclasses import replace

from training.data.archive import Archive
from training.metrics.context import Aids


def test_nearest_without_a_place_for_its_sheet_says_how_to_get_one(context, measured) -> None:
    said: list[str] = []
    assert measured("nearest12", replace(context, aids=Aids(say=said.append)))
    assert len(said) == 1 and "--outdir" in said[0]


def test_nearest_leaves_a_sheet(context, tmp_path, measured) -> None:
    said: list[str] = []
    found = measured("nearest12", replace(context, aids=Aids(sheets=tmp_path / "out", say=said.append)))
    assert set(found) == {f"nearest12-corners-embed_{what}" for what in ("share", "closest", "median")}
    assert (tmp_path / "out" / "nearest12-corners-embed-000001.png").is_file() and "000001.png" in said[0]


def test_diversity_and_overfitting_by_name(context, tinted, measured) -> None:
    name = "diversity40-pixels"
    assert {"diversity40-discriminator_ratio", f"{name}_ratio"} <= set(measured("diversity40-discriminator", context))
    assert set(measured(name, context)) == {name, f"{name}_error", f"{name}_reals", f"{name}_ratio"}
    assert set(measured(name, replace(context, data=None))) == {name, f"{name}_error"}
    found = measured("overfit40", replace(context, aids=Aids(validation=Archive.open(tinted))))
    assert found["overfit40_validation"] == found["overfit40_train"]  # the same images
    assert found["overfit40_rv"] == 0
    assert "overfit40_rv" not in measured("overfit40", context)


def test_collapse_is_said_aloud(context, tiny_network, measured) -> None:
    said: list[str] = []
    context = replace(context, source=tiny_network(noise=False), psi=0.01, aids=Aids(say=said.append))
    assert measured("diversity40-pixels", context)["diversity40-pixels_ratio"] < 0.6
    assert said[0].startswith("Collapsed: images differ by ")
