"""What a run says of itself."""

from __future__ import annotations

import json

import pytest

from training.runs.report import LOG, STATS, Report, status_line


def test_lines_and_numbers_are_in_the_files_at_once(tmp_path, capsys) -> None:
    with Report(tmp_path, 10, 0, {}) as report:
        report.say("hello, größe")
        report.stats({"Progress/kimg": 1.5}, 1500)
        assert (tmp_path / LOG).read_text(encoding="utf-8") == "hello, größe\n"
        assert json.loads((tmp_path / STATS).read_text()) == {"Progress/kimg": 1.5}
        assert report.lengths() == {LOG: len("hello, größe\n".encode()), STATS: len('{"Progress/kimg": 1.5}\n')}
    assert capsys.readouterr().out == "hello, größe\n"


def test_a_resumed_run_forgets_what_came_after_its_state(tmp_path) -> None:
    with Report(tmp_path, 10, 0, {}) as report:
        report.say("kept")
        lengths = report.lengths()
        report.say("lost")
        report.stats({"a": 1}, 1)
    with Report(tmp_path, 10, 1000, lengths) as report:
        report.say("new")
    assert (tmp_path / LOG).read_text() == "kept\nnew\n"
    assert (tmp_path / STATS).read_text() == ""


def test_a_log_that_was_deleted_or_shortened_is_not_filled_up(tmp_path) -> None:
    (tmp_path / LOG).write_text("ab\n")
    with Report(tmp_path, 10, 1000, {LOG: 100, STATS: 100}) as report:
        report.say("new")
    assert (tmp_path / LOG).read_bytes() == b"ab\nnew\n"
    assert (tmp_path / STATS).read_bytes() == b""


def test_curves_do_not_go_back_in_time(tmp_path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Report(tmp_path, 10, 0, {}) as report:
        for nimg in (100, 200, 300):
            report.stats({"x": float(nimg)}, nimg)
    with Report(tmp_path, 10, 200, {}) as report:
        report.stats({"x": 7.0}, 300)
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("x")] == [(100, 100.0), (200, 200.0), (300, 7.0)]


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Report(tmp_path, 10, 0, {}) as report:
        report.advance(2500, 32, 0.25)
        report.say("a line")
    error = capsys.readouterr().err
    assert "2.5/10 kimg" in error and "res 32, alpha 0.25" in error
    assert (tmp_path / LOG).read_text() == "a line\n"


def test_the_status_line_has_everything_and_leaves_blank_what_is_not_known() -> None:
    values = {
        "Progress/tick": 3, "Progress/kimg": 12.0, "Progress/resolution": 16, "Progress/alpha": 0.5,
        "Timing/sec_per_kimg": 20.0, "Timing/img_per_sec": 50.0, "Timing/data_percent": 1.2,
        "Loss/D/loss": 1.2345, "Loss/signs/real": 0.25, "Gradient/G": 2.0, "Resources/peak_mem_mb": 512.3,
    }  # fmt: skip
    line = status_line(values, 65.0, 7200.0)
    for part in (
        "tick 3",
        "kimg 12.0",
        "res 16",
        "alpha 0.50",
        "20.0 s/kimg",
        "50.0 img/s",
        "(data 1.2%)",
        "ETA phase 1m 5s run 2h 0m",
        "D 1.23 G -",
        "sign 0.25/-",
        "r1 -",
        "grad -/2",
        "mem 512 MB",
    ):
        assert part in line
    assert "\n" not in line
