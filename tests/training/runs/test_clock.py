"""Where the time of a run goes."""

from __future__ import annotations

from training.runs.report import Clock


def test_the_clock_knows_the_share_of_the_data(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("training.runs.report.time.perf_counter", lambda: now[0])
    clock = Clock()
    for waited, worked in ((1.0, 3.0), (0.5, 5.5)):
        with clock.data():
            now[0] += waited
        now[0] += worked
    clock.images += 8
    assert (clock.data_seconds, clock.seconds()) == (1.5, 10.0)
    clock.restart()
    assert (clock.images, clock.data_seconds, clock.seconds(), clock.saved) == (0, 0.0, 0.0, 100.0)
    assert (clock.lap(), clock.lap()) == (10.0, 0.0), "all of the time, whatever was restarted"
