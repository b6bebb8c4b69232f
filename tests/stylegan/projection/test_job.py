"""A job computes, hashes and generates each thing once, and takes what is on disk for what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.checkpoints import snapshot as snapshots
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import SUFFIX, Crop, Latents, load_latents
from stylegan.networks.inference import Renderer
from stylegan.projection import job as jobs
from stylegan.projection import pivotal_tuning
from stylegan.projection.distance import PIXELS, Distance
from stylegan.projection.job import Job, replaced_files, run, side_by_side
from stylegan.projection.photos import Photo
from stylegan.projection.pivotal_tuning import DELTA, apply_delta
from stylegan.projection.projector import Projector, WStatistics
from stylegan.projection.records import changes, hash_of, is_of
from stylegan.projection.settings import ProjectionSettings, TuningSettings
from tests.stylegan import tiny
from tests.stylegan.tiny import TINY
from torch_utils.checkpoint import save_state
from torch_utils.errors import UserError

FAST = ProjectionSettings(num_steps=4, w_samples=50)
FURTHER = Distance("halved", lambda images, dtype=torch.float32: [images / 2])


def snapshot(num_classes: int = 0) -> Snapshot:
    return tiny.snapshot(replace(TINY, num_classes=num_classes))


def photos(count: int = 3) -> list[Photo]:
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(count)]
    return [Photo(f"p{i}", Path(f"p{i}.png"), pixels[i], ()) for i in range(count)]


def job_of(outdir: Path, snap: Snapshot | None = None, tuning: bool = True) -> Job:
    settings = TuningSettings(steps=2, maps="float32", locality=0.5)
    return Job(snap or snapshot(), FAST, PIXELS, outdir, settings if tuning else None)


def calls_of(monkeypatch: pytest.MonkeyPatch, where: object, name: str, noted: Callable[..., object]) -> list[object]:
    """What `noted` returns for the arguments of each call of a function, which is called as before."""
    calls: list[object] = []
    function = getattr(where, name)

    def call(*arguments: object) -> object:
        calls.append(noted(*arguments))
        return function(*arguments)

    monkeypatch.setattr(where, name, call)
    return calls


@pytest.mark.parametrize("num_classes", [0, 3])
def test_everything_is_computed_once(num_classes, tmp_path, monkeypatch):
    snap = snapshot(num_classes)
    c = torch.tensor([2, 0, 2]) if num_classes else None
    hashed = calls_of(monkeypatch, snapshots, "fingerprint", lambda config, weights: "hashed")
    measured = calls_of(monkeypatch, WStatistics, "_measure", lambda self, kind: (self.samples, kind))
    drawn = calls_of(monkeypatch, Renderer, "draw", lambda self, ws, *rest: len(ws))
    run(job_of(tmp_path, snap), photos(), c)
    kinds = [0, 2] if num_classes else [None]
    assert hashed == ["hashed"]
    assert sorted(measured, key=str) == sorted([(n, kind) for n in (50, 1000) for kind in kinds], key=str)
    assert sum(drawn) == 3 + len(kinds) + 3  # as found, at the means of w, as tuned
    run(job_of(tmp_path, snap), photos(), c)
    assert hashed == ["hashed"] and sum(drawn) == 3 + len(kinds) + 3


def test_what_was_just_written_is_not_read_back(tmp_path, monkeypatch):
    read = calls_of(monkeypatch, jobs, "load_latents", lambda path, snap: path.name)
    monkeypatch.setattr(pivotal_tuning, "load_bound", None)  # would fail
    run(job_of(tmp_path), photos())
    assert read == []
    run(replace(job_of(tmp_path), tuning=TuningSettings(steps=3, maps="float32")), photos())
    assert read == [f"p{i}{SUFFIX}" for i in range(3)]


def test_only_the_last_batch_is_kept_in_memory(tmp_path, monkeypatch):
    read = calls_of(monkeypatch, jobs, "load_latents", lambda path, snap: path.name)
    run(replace(job_of(tmp_path), batch=2), photos())
    assert read == [f"p0{SUFFIX}", f"p1{SUFFIX}"]


def test_what_is_tuned_in_memory_is_what_the_files_give(tmp_path):
    together, later = tmp_path / "together", tmp_path / "later"
    run(job_of(together), photos())
    run(job_of(later, tuning=False), photos())
    run(job_of(later), photos())
    for name in ("p0", "p2"):
        assert (together / f"{name}.png").read_bytes() == (later / f"{name}.png").read_bytes()
        a, b = (apply_delta(snapshot(), folder / f"{name}{DELTA}") for folder in (together, later))
        assert a.fingerprint == b.fingerprint != snapshot().fingerprint


def test_numbers_do_not_depend_on_when_they_were_asked_for(tmp_path):
    together, later = tmp_path / "a", tmp_path / "b"
    records = run(replace(job_of(together), also=(FURTHER,)), photos())
    run(job_of(later), photos())
    for a, b in zip(records, run(replace(job_of(later), also=(FURTHER,)), photos()), strict=True):
        assert list(a["found"]) == ["pixels", "halved", "mse"] and a["mean"] == b["mean"] and a["found"] == b["found"]
        assert a["pti"]["found"] == b["pti"]["found"]
    assert json.loads((together / "report.json").read_text())["photos"] == records


def test_a_search_of_something_else_is_not_resumed_and_a_damaged_one_is_an_error(tmp_path):
    save_state(tmp_path / "projection-state.pt", {"key": "another"})
    run(job_of(tmp_path, tuning=False), photos(1))
    assert not (tmp_path / "projection-state.pt").exists()
    (tmp_path / "projection-state.pt").write_bytes(b"no state")
    with pytest.raises(UserError, match="cannot be read; delete it to start again"):
        run(job_of(tmp_path, tuning=False), photos(2))


def test_latents_of_a_job_belong_to_their_photographs(tmp_path):
    snap = snapshot(3)
    run(job_of(tmp_path, snap, tuning=False), photos(), torch.tensor([2, 0, 1]))
    found = load_latents(tmp_path / f"p1{SUFFIX}", snap)
    assert found.names == ("p1",) and found.origins == ("photo p1.png",)
    assert found.c is not None and found.c.tolist() == [0]


def test_results_are_of_a_photograph_by_its_pixels_or_its_place():
    first, second = photos(2)
    record = {"file": "p0.png", "parts": {"picture": hash_of(first.pixels)}}
    assert is_of(record, first) and is_of(record, replace(first, path=Path("elsewhere/copy.png")))
    assert is_of(record, replace(first, pixels=second.pixels))
    assert not is_of(record, second) and not is_of(None, first)
    assert not is_of(record, replace(second, path=first.path, face=2))
    assert not is_of(record, replace(second, path=Path("elsewhere/p0.png")))
    for damaged in ({}, {"file": None, "parts": 3}):
        assert not is_of(damaged, first)


def test_nothing_of_another_photograph_is_replaced(tmp_path):
    first, second = photos(2)
    other = replace(second, name="p0", path=Path("elsewhere/p0.png"))
    run(job_of(tmp_path), [first])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        UserError, match=r"p0.latent.safetensors is of /.*/p0.png, and would be replaced; .*--overwrite"
    ):
        run(job_of(tmp_path), [other])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    over = replace(job_of(tmp_path), overwrite=True)
    assert {path.name for path in replaced_files(over, [other])} == {f"p0{SUFFIX}", "p0.png", f"p0{DELTA}"}
    assert run(over, [other])[0]["file"].endswith("elsewhere/p0.png")
    assert replaced_files(over, [other]) == replaced_files(job_of(tmp_path), [other]) == []


def test_what_a_run_replaces_is_known_before(tmp_path):
    (first,) = photos(1)
    run(job_of(tmp_path), [first])
    again = {path.name for path in replaced_files(replace(job_of(tmp_path), settings=replace(FAST, seed=1)), [first])}
    tuned = {path.name for path in replaced_files(replace(job_of(tmp_path), tuning=TuningSettings(steps=3)), [first])}
    assert again == {f"p0{SUFFIX}", "p0.png", f"p0{DELTA}"} and tuned == {"p0.png", f"p0{DELTA}"}
    (tmp_path / f"p0{DELTA}").unlink()
    assert [path.name for path in replaced_files(job_of(tmp_path), [first])] == ["p0.png"]


def test_files_that_the_report_does_not_know_are_replaced_only_if_they_are_of_the_photograph(tmp_path):
    (first,) = photos(1)
    ours = replace(first, crop=Crop("a", (16, 16), ((0.0, 0.0), (0.0, 16.0), (16.0, 16.0), (16.0, 0.5))))
    run(job_of(tmp_path, tuning=False), [ours])
    (tmp_path / "report.json").unlink()
    assert len(replaced_files(job_of(tmp_path), [ours])) == 2  # as if it had been killed before the report
    with pytest.raises(UserError, match="p0.latent.safetensors is not in the report there"):
        run(job_of(tmp_path), [replace(ours, crop=replace(ours.crop, photo="b"))])
    (tmp_path / f"p0{SUFFIX}").write_bytes(b"")
    with pytest.raises(UserError, match="is not in the report there"):
        run(job_of(tmp_path), [ours])


def starts_of(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The ws at which each search of the test starts."""
    return calls_of(monkeypatch, Projector, "project", lambda self, *rest: rest[-1] and rest[-1].ws.clone())


def test_each_frame_starts_where_the_one_before_ended(tmp_path, monkeypatch):
    starts = starts_of(monkeypatch)
    job = replace(job_of(tmp_path, tuning=False), sequence=True)
    run(job, photos())
    found = [load_latents(tmp_path / f"p{i}{SUFFIX}", snapshot()).ws for i in range(3)]
    assert starts[0] is None and torch.equal(starts[1], found[0]) and torch.equal(starts[2], found[1])
    assert run(job, photos()) and len(starts) == 3  # all of it is done
    (tmp_path / f"p2{SUFFIX}").unlink()
    run(job, photos())
    assert len(starts) == 4 and torch.equal(starts[3], found[1])
    assert torch.equal(load_latents(tmp_path / f"p2{SUFFIX}", snapshot()).ws, found[2])
    changed = [replace(photos(1)[0], pixels=photos(1)[0].pixels // 2), *photos()[1:]]
    said: list[str] = []
    run(job, changed, say=said.append)
    assert len(starts) == 7
    assert said[1] == "p1, p2: projected again, because where it starts has changed"


def test_a_search_starts_at_given_latents_one_for_all_or_one_for_each(tmp_path, monkeypatch):
    starts = starts_of(monkeypatch)
    ws = torch.randn(3, 1, 8).expand(-1, 6, -1)
    names = ("a", "b", "c")
    whole = Latents(ws, names, names)
    each = tuple(whole[i : i + 1] for i in range(3))
    run(replace(job_of(tmp_path, tuning=False), starts=each, batch=2), photos())
    assert torch.equal(starts[0], ws[:2]) and torch.equal(starts[1], ws[2:])
    run(replace(job_of(tmp_path, tuning=False), starts=each), photos())
    assert len(starts) == 2
    run(replace(job_of(tmp_path, tuning=False), starts=each[:1]), photos())
    assert len(starts) == 3 and torch.equal(starts[2], ws[:1].expand(2, -1, -1))  # the first one is done


def test_starts_of_different_kinds_keep_what_they_have_in_any_batch(tmp_path, monkeypatch):
    job, own = job_of(tmp_path, tuning=False), snapshot().G.own_noise()
    w = Latents(torch.randn(1, 1, 8).expand(-1, 6, -1), ("a",), ("a",))
    with_noise = replace(w, noise=tuple(torch.randn_like(m) for m in own))
    plus = replace(w, ws=torch.randn(1, 6, 8))
    job = replace(job, starts=(w, with_noise, plus), settings=replace(FAST, space="w+", plus_steps=2))
    starts = calls_of(monkeypatch, Projector, "project", lambda self, *rest: rest[-1])
    records = run(job, photos())
    assert [len(start.noise) for start in starts] == [0, len(own), 0] and [r["steps"] for r in records] == [6, 6, 2]


def test_each_face_of_a_frame_starts_where_the_same_face_ended(tmp_path, monkeypatch):
    starts = starts_of(monkeypatch)
    faces = [replace(photo, face=1 + i % 2) for i, photo in enumerate(photos(4))]
    run(replace(job_of(tmp_path, tuning=False), sequence=True), faces)
    found = [load_latents(tmp_path / f"p{i}{SUFFIX}", snapshot()).ws for i in range(2)]
    assert starts[:2] == [None, None]
    assert torch.equal(starts[2], found[0]) and torch.equal(starts[3], found[1])


def test_what_has_changed_is_said():
    parts = {"picture": "a", "network": "b", "--seed": 0}
    record = {"key": hash_of(parts), "parts": parts}
    assert changes(record, dict(parts)) is None
    assert changes(record, parts | {"picture": "x", "--seed": 3}) == (
        "the photograph has changed, --seed was 0 and is now 3"
    )
    assert changes(record, parts | {"network": "x"}) == "the network has changed"
    for older in ({"key": "z"}, {"key": "z", "parts": parts | {"--gone": 1}}):
        assert changes(older, parts) == "it was made with other settings, or by an older version"


def test_target_found_and_difference_stand_side_by_side():
    a, b = torch.full((1, 3, 4, 4), 2.0), torch.zeros(1, 3, 4, 4)
    assert side_by_side(a, b)[0, 0, 0].tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert side_by_side(b, b)[0, 0, 0, -1] == -1
