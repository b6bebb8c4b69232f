"""The notation for the images that a tool starts from."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.latents.notation import is_photograph, parse_points
from torch_utils.errors import UserError
from torch_utils.text import parse_seeds


def test_seeds_and_files_in_the_order_written():
    text = "0-2, a/me.latent.safetensors,12,Eva.JPG,3-4.png"
    assert parse_points(text) == (0, 1, 2, Path("a/me.latent.safetensors"), 12, Path("Eva.JPG"), Path("3-4.png"))
    assert parse_points("~/a.png") == (Path("~/a.png").expanduser(),)
    assert [is_photograph(p) for p in parse_points("a.png,b.latent.safetensors") if isinstance(p, Path)] == [
        True,
        False,
    ]


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_without_files_it_is_a_list_of_seeds(seeds):
    text = ",".join(map(str, seeds))
    assert list(parse_points(text)) == parse_seeds(text)


@pytest.mark.parametrize("text", ["me.safetensors", "a/b", "x.txt"])
def test_other_files_are_refused_with_the_kinds_that_are_taken(text):
    with pytest.raises(UserError, match=r"latent file .*photograph"):
        parse_points(text)


def test_a_folder_is_its_latent_files_or_its_photographs_and_what_is_left_out_is_said(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".c.png", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    notes: list[str] = []
    assert parse_points(f"3,{tmp_path},5", notes.append) == (3, tmp_path / "a.JPG", tmp_path / "b.png", 5)
    assert notes == [f"{tmp_path}: 2 photographs taken, 2 left out: notes.txt, sub"]
    for name in ("y", "x"):
        (tmp_path / f"{name}.latent.safetensors").touch()
    assert [path.name[0] for path in parse_points(f"{tmp_path}/", notes.append)] == ["x", "y"]  # type: ignore[union-attr]
    assert notes[1].endswith("2 latent files taken, 4 left out: a.JPG, b.png, notes.txt, sub")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither a latent file .* in the folder .*empty"):
        parse_points(str(tmp_path / "empty"))


def test_a_folder_named_like_a_seed_is_a_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("5", "0-2", "photos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    assert parse_points("5,0-2,photos,./5") == (5, 0, 1, 2, Path("photos/a.png"), Path("5/a.png"))


@given(st.text(max_size=12))
def test_any_text_is_points_or_a_user_error(text):
    with contextlib.suppress(UserError):
        assert parse_points(text)
