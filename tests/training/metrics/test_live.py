"""Measuring along the way: the numbers of calc_metrics.py, no trace in the training, and the best snapshot kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.cli import metrics as calc_metrics
from torch_utils.errors import UserError
from training.config import RunConfig
from training.loop import train
from training.runs import live_metrics as live
from training.runs.check import check
from training.runs.report import LOG
from training.runs.run_dir import STATE

METRICS, FEATURES = "swd20,kid30_full", "own_features:corners"
KID = "kid30_full-own_features-corners"


@pytest.fixture(scope="module", autouse=True)
def own_features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features that need no download, and a cache of these tests' own."""
    cache, monkeypatch = tmp_path_factory.mktemp("cache"), pytest.MonkeyPatch()
    monkeypatch.setenv("STYLEGAN_CACHE", str(cache))
    (cache / "own_features.py").write_text(
        "import torch.nn.functional as F\n"
        "def corners(images):\n"
        "    return F.adaptive_avg_pool2d(images.float(), 2).flatten(1) / 255\n"
    )
    monkeypatch.syspath_prepend(cache)
    yield
    monkeypatch.undo()


def lines(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / f"metric-{name}.jsonl").read_text().splitlines()]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run_dir / STATE, weights_only=True)["G"]
    return state


@pytest.fixture(scope="module")
def run_dir(tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory, own_features: None) -> Path:
    """A measured run of three snapshots, of 8x8, 16x16 and 16x16."""
    folder = tmp_path_factory.mktemp("measured")
    train(tiny(metrics=METRICS, features=FEATURES), folder)
    return folder


def test_every_snapshot_is_measured(run_dir) -> None:
    assert [line["kimg"] for line in lines(run_dir, KID)] == [0.08, 0.16, 0.24]
    assert [line["kimg"] for line in lines(run_dir, "swd20")] == [0.16, 0.24]  # there are no patches of 8x8
    assert "swd20 was skipped" in (run_dir / LOG).read_text()


def test_training_does_not_notice(run_dir, straight) -> None:
    ours, theirs = weights(run_dir), weights(straight)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_numbers_are_those_of_the_script(run_dir, images, tmp_path) -> None:
    """The last snapshot, which keeps its name, measured by itself."""
    options = {"network": run_dir, "data": images, "metrics": "kid30_full", "features": FEATURES, "outdir": tmp_path}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    outcome = CliRunner().invoke(calc_metrics.main, [*arguments, "--device", "cpu"])
    assert outcome.exit_code == 0, outcome.output
    assert lines(tmp_path, KID)[0]["results"] == lines(run_dir, KID)[-1]["results"]


def test_the_best_of_the_largest_pictures_is_kept(run_dir) -> None:
    best = min(lines(run_dir, "swd20"), key=lambda line: line["results"]["swd20"])
    assert load_snapshot(run_dir / live.BEST).fingerprint == best["network"]


def line(network: str, resolution: int, score: float, **other: Any) -> str:
    settings = {"data_hash": "", "seed": 0, "psi": 1.0, "mirror": False, "snapshot_pkl": f"{network}.safetensors"}
    return json.dumps(settings | {"network": network, "resolution": resolution, "results": {KID: score}} | other)


@pytest.mark.parametrize(
    "scores,best", [((3.0, 2.0, 2.0), "b"), ((0.1, 4.0, 3.0), "c"), ((0.1, float("nan"), 3.0), "c")]
)
def test_small_pictures_do_not_count_when_larger_ones_are_there(tiny, tmp_path, scores, best) -> None:
    entries = [line(network, size, score) for network, size, score in zip("abc", (8, 16, 16), scores)]
    (tmp_path / f"metric-{KID}.jsonl").write_text("\n".join([*entries, '{"network": "cut o']))
    found = live.best_line(measuring(tiny), tmp_path, "kid30_full")
    assert found is not None and found["network"] == best


@pytest.mark.parametrize("other", [{"psi": 0.5}, {"seed": 1}, {"mirror": True}, {"data_hash": "another"}])
def test_what_was_measured_otherwise_does_not_count(tiny, tmp_path, other) -> None:
    (tmp_path / f"metric-{KID}.jsonl").write_text(line("a", 16, 2.0) + "\n" + line("b", 16, 1.0, **other))
    found = live.best_line(measuring(tiny), tmp_path, "kid30_full")
    assert found is not None and found["network"] == "a"


def measuring(tiny: Callable[..., RunConfig]) -> RunConfig:
    return tiny(metrics=METRICS, features=FEATURES, data__content_hash="")


def test_what_is_measured_already_is_not_measured_again(run_dir, tiny, tmp_path) -> None:
    shutil.copytree(run_dir, tmp_path / "copy")
    told: list[str] = []
    (path,) = (tmp_path / "copy").glob("network-snapshot-*.safetensors")
    cfg = tiny(metrics=METRICS, features=FEATURES)
    live.measure_snapshot(cfg, path, told.append, told.append, told.append)
    assert len(lines(tmp_path / "copy", KID)) == 3 and not told


def test_another_best_is_kept_when_it_is_asked_for(run_dir, tiny, tmp_path) -> None:
    """The last snapshot is the only one that still lies there: it is copied if it is the best, or else nothing is."""
    shutil.copytree(run_dir, tmp_path / "copy")
    told: list[str] = []
    cfg = tiny(metrics=METRICS, features=FEATURES, best="kid30_full")
    best = min(lines(run_dir, KID)[1:], key=lambda entry: entry["results"][KID])["network"]
    (tmp_path / "copy" / live.BEST).unlink()
    live.keep_best(cfg, tmp_path / "copy", told.append)
    if best == lines(run_dir, KID)[-1]["network"]:
        assert load_snapshot(tmp_path / "copy" / live.BEST).fingerprint == best and len(told) == 1
        live.keep_best(cfg, tmp_path / "copy", told.append)
        assert len(told) == 1
    else:
        assert not (tmp_path / "copy" / live.BEST).exists()


def test_trouble_in_a_metric_does_not_end_a_training(run_dir, tiny, tmp_path, monkeypatch) -> None:
    def no_memory(*arguments: object) -> None:
        raise RuntimeError("out of memory\nat some length")

    monkeypatch.setattr(live, "evaluate", no_memory)
    told: list[str] = []
    (path,) = run_dir.glob("network-snapshot-*.safetensors")
    cfg = tiny(metrics="kid20", features=FEATURES)
    live.measure_snapshot(cfg, path, lambda text: None, told.append, lambda found: None)
    assert told == ["kid20 was skipped: out of memory"]


def test_what_will_be_needed_is_looked_for_at_the_start(tiny, new_images, tmp_path) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="no archive or folder"):
        live.require_measurable(tiny(val=str(tmp_path / "none.zip")), cpu)
    with pytest.raises(UserError, match="other channels"):
        live.require_measurable(tiny(val=str(new_images(channels=1))), cpu)
    with pytest.raises(UserError, match="nonsense"):
        live.require_measurable(tiny(metrics="kid20", features="nonsense"), cpu)
    live.require_measurable(tiny(features="nonsense"), cpu)  # nobody looks through them


@pytest.mark.parametrize("keep,left", [(None, 3), (1, 1), (2, 2), (5, 3)])
def test_the_newest_snapshots_are_kept(tiny, tmp_path, keep, left) -> None:
    names = [f"network-snapshot-{number}.safetensors" for number in ("000009", "000010", "1000000")]
    for name in [*names, live.BEST]:
        (tmp_path / name).touch()
    live.prune(tiny(keep=keep), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names[3 - left :], live.BEST}


def test_a_wish_to_stop_ends_the_measuring_and_resuming_makes_up_for_it(tiny, tmp_path, monkeypatch) -> None:
    cfg = tiny(metrics="kid30_full", features=FEATURES, snap=2)
    measure = live.evaluate

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 0)  # where Python gets to see the signal
        return measure(*arguments)

    monkeypatch.setattr(live, "evaluate", interrupted)
    train(cfg, tmp_path)
    assert not (tmp_path / f"metric-{KID}.jsonl").exists()
    monkeypatch.undo()
    train(cfg, tmp_path, resume=True)
    assert [line["kimg"] for line in lines(tmp_path, KID)] == [0.16, 0.24]


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"metrics": "fdi5k"}, "there is no metric 'fdi5k'"),
        ({"metrics": "kid5k", "best": "fid5k"}, "--best fid5k is none of --metrics kid5k"),
        ({"metrics": "msssim50", "best": "msssim50"}, "does not tell better from worse"),
        ({"metrics": "kid5k,ls2k"}, "--metrics ls2k takes a classifier"),
        ({"metrics": "kid5k,overfit50", "snap_d": False}, "--metrics overfit50 takes the discriminator, .* --snap-d 1"),
        ({"metrics": "ppl50_zend-discriminator", "snap_d": False}, "takes the discriminator"),
        ({"keep": 0}, "--keep 0 cannot be"),
    ],
)
def test_what_cannot_be_measured_is_refused(tiny, changes, says) -> None:
    with pytest.raises(UserError, match=says):
        check(tiny(**changes))
