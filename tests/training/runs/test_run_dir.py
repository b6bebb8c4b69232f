"""Run directories: numbers, the stored configuration, refusals."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.checkpoint import load_state, save_state
from torch_utils.errors import UserError
from training.config import RunConfig
from training.runs.resume import preset
from training.runs.run_dir import (
    OPTIONS,
    PREVIOUS,
    STATE,
    create_run_dir,
    has_state,
    images_done,
    is_finished,
    mark_finished,
    parse_options,
    read_options,
    settle_state,
    store_end,
    write_options,
)


def test_numbers_count_up_from_the_highest(tmp_path):
    assert create_run_dir(tmp_path / "new" / "runs", "a").name == "00000-a"
    assert create_run_dir(tmp_path / "new" / "runs", "b").name == "00001-b"
    (tmp_path / "new" / "runs" / "00041-old").mkdir()
    (tmp_path / "new" / "runs" / "notes").mkdir()
    assert create_run_dir(tmp_path / "new" / "runs", "a").name == "00042-a"


def test_a_description_becomes_a_plain_name(tmp_path):
    assert create_run_dir(tmp_path, "my faces/64 é").name == "00000-my-faces-64-é"


def test_runs_that_start_at_once_get_different_numbers(tmp_path):
    start = threading.Barrier(8)
    made: list[Path] = []

    def begin(desc: str) -> None:
        start.wait()
        for _ in range(5):
            made.append(create_run_dir(tmp_path, desc))

    threads = [threading.Thread(target=begin, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name[:5]) for path in made) == list(range(40))
    assert sorted(tmp_path.iterdir()) == sorted(made), "nothing else is left behind"


def test_options_read_back(tmp_path):
    cfg = preset("faces64", 1)
    write_options(tmp_path, cfg)
    (tmp_path / STATE).touch()
    assert read_options(tmp_path) == cfg
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([OPTIONS, STATE])


def test_a_longer_total_is_kept_beside_what_was_there(tmp_path):
    cfg = preset("faces64", 1)
    write_options(tmp_path, cfg)
    (tmp_path / STATE).touch()
    longer = replace(cfg, total_kimg=cfg.total_kimg + 5, growth=replace(cfg.growth, anneal_from=cfg.total_kimg))
    store_end(tmp_path, replace(longer, seed=cfg.seed + 1))
    assert read_options(tmp_path) == longer


def test_how_far_a_run_has_got_is_read_from_the_state_it_goes_on_from(tmp_path):
    for name, nimg in ((PREVIOUS, 80), (STATE, 96)):
        save_state(tmp_path / name, {"nimg": nimg})
    assert images_done(tmp_path) == 96
    (tmp_path / STATE).write_bytes(b"torn")
    assert images_done(tmp_path) == 80
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(UserError, match="damaged"):
        images_done(tmp_path)


def test_what_cannot_be_resumed_is_said(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_options(tmp_path / "absent")
    with pytest.raises(UserError, match="not a run"):
        read_options(tmp_path)
    write_options(tmp_path, preset("faces64", 1))
    with pytest.raises(UserError, match="before its first save"):
        read_options(tmp_path)
    (tmp_path / STATE).touch()
    for content in (b"{", b"\xff"):
        (tmp_path / OPTIONS).write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            read_options(tmp_path)


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--outdir"):
        create_run_dir(tmp_path / "file", "a")
    if os.getuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="--outdir"):
            create_run_dir(tmp_path, "a")


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path):
    newest, previous = tmp_path / STATE, tmp_path / PREVIOUS
    for number in range(2):
        save_state(newest, {"i": number}, previous)
    assert settle_state(tmp_path) == "" and load_state(newest)["i"] == 1
    newest.write_bytes(newest.read_bytes()[:50])
    assert "truncated" in settle_state(tmp_path) and load_state(newest)["i"] == 0 and not previous.exists()
    newest.rename(previous)  # as if killed between two names
    assert has_state(tmp_path) and "missing" in settle_state(tmp_path) and load_state(newest)["i"] == 0
    newest.write_bytes(b"")
    with pytest.raises(UserError, match="no state of .* is whole"):
        settle_state(tmp_path)


def test_folders_in_the_place_of_states_are_moved(tmp_path):
    newest, previous = tmp_path / STATE, tmp_path / PREVIOUS
    save_state(newest, {"i": 0})
    for path in (previous, newest):
        if path == newest:
            newest.rename(previous)
        (path / "inside").mkdir(parents=True)
        assert bool(settle_state(tmp_path)) == (path == newest) and (tmp_path / f"{path.name}.folder/inside").is_dir()
        assert load_state(newest)["i"] == 0
    save_state(newest, {"i": 1}, previous)
    (tmp_path / f"{STATE}.folder").rename(newest.with_name("x"))
    newest.unlink()
    newest.mkdir()
    (tmp_path / f"{STATE}.folder").touch()
    with pytest.raises(UserError, match="is a folder in the place of a file.*move it away"):
        settle_state(tmp_path)


def test_the_end_belongs_to_a_length(tmp_path):
    assert not is_finished(tmp_path, 1)
    mark_finished(tmp_path, 25000.125)
    assert is_finished(tmp_path, 25000.125) and is_finished(tmp_path, 9) and not is_finished(tmp_path, 25000.126)


@given(data=st.data())
def test_damaged_options_are_settings_or_a_user_error(data, damaged, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / OPTIONS
    write_options(path.parent, preset("faces64", 1))
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        assert isinstance(parse_options(path), RunConfig)
    except UserError as error:
        assert str(error).isprintable()


def test_a_name_in_the_options_cannot_drive_the_terminal(tmp_path):
    (tmp_path / OPTIONS).write_text('{"\\u001b[2J": 1}')
    with pytest.raises(UserError, match="unknown setting") as error:
        parse_options(tmp_path / OPTIONS)
    assert str(error.value).isprintable()
