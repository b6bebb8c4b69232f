"""train.py as a user meets it: what it resolves, refuses, and does not touch. Training itself is replaced."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import stylegan
from stylegan.cli import data as dataset_tool
from stylegan.cli import train
from torch_utils.checkpoint import save_state
from torch_utils.settings import replaced
from training.config import RunConfig
from training.runs.hours import Costs, parts
from training.runs.resume import preset
from training.runs.run_dir import OPTIONS, STATE, parse_options, write_options
from training.schedule import PerResolution

FACES64 = preset("faces64", 1)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[RunConfig, Path, bool, str | None]]:
    """What train.py asks the training loop to do."""
    asked: list[Any] = []

    def train_stand_in(cfg: RunConfig, run_dir: Path, resume: bool = False, init_from: str | None = None) -> None:
        asked.append((cfg, run_dir, resume, init_from))

    monkeypatch.setattr("training.runs.launch.train", train_stand_in)
    return asked


@pytest.fixture
def faces(tmp_path) -> Path:
    """A folder of four 64x64 images."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(np.full((64, 64, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(train.main, [str(a) for a in arguments])


def test_a_run_gets_a_directory_its_options_and_its_training(calls, faces, tmp_path):
    result = run("--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64", "--gamma", 3, "--desc", "try")
    assert result.exit_code == 0, result.output
    ((cfg, run_dir, resume, init_from),) = calls
    assert run_dir == tmp_path / "runs" / "00000-faces-faces64-try"
    assert (cfg.loss.r1_gamma, cfg.data.path, resume, init_from) == (PerResolution(3.0), str(faces), False, None)
    assert stored_options(run_dir) == cfg


def test_a_run_from_another_network_is_at_least_as_wide_unless_widths_are_given(calls, faces, tmp_path):
    fixed = ("--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64", "--init-from", "faces64")
    theirs = stylegan.load("faces64").config
    for typed in ((), ("--fmap-base", theirs.fmap_base // 2), ("--fmap-max", theirs.fmap_max * 2)):
        assert run(*fixed, *typed).exit_code == 0
    widths = [(call[0].model.fmap_base, call[0].model.fmap_max) for call in calls]
    base, most = theirs.fmap_base, theirs.fmap_max
    assert widths == [(base, most), (base // 2, most), (base, most * 2)]


@pytest.mark.parametrize(("cfg", "title"), [("dcgan-mnist", "DCGAN"), ("progan1024", "ProGAN")])
def test_a_metric_in_w_is_refused_at_once_where_there_is_no_w(cfg: str, title: str, calls, tmp_path):
    fixed = ("--outdir", tmp_path / "runs", "--data", "mnist", "--cfg", cfg, "--resolution", 32)
    for more in ((), ("--dry-run",)):
        result = run(*fixed, "--metrics", "kid5k,ppl_wend", *more)
        assert result.exit_code == 2 and not (tmp_path / "runs").exists()
        assert f"--metrics ppl_wend: {title} has no w, because it generates images from z directly; measure its path "\
            "length in z" in result.stderr  # fmt: skip
    assert run(*fixed, "--metrics", "kid5k,ppl_zend").exit_code == 0 and len(calls) == 1


@pytest.mark.parametrize(("name", "says"), [
    ("kid20k", "it takes 20000 real images and mnist has 10000; ask for kid10000, or kid20k_full for all of them"),
    ("fid500_full", "500 fakes are too few for the covariance of 1280 features"),
    ("is100-lpips-alex", "lpips-alex tells no classes"), ("overfit31", "sees groups of 16 images"),
])  # fmt: skip
def test_a_metric_that_these_data_and_networks_cannot_have_is_refused_at_once(name, says, calls, tmp_path):
    fixed = ("--outdir", tmp_path / "runs", "--data", "mnist", "--cfg", "digits32")
    result = run(*fixed, "--metrics", f"kid5k,{name}")
    assert result.exit_code == 2 and f"--metrics {name}: " in result.stderr and says in result.stderr
    assert not calls and not (tmp_path / "runs").exists()
    assert run(*fixed, "--metrics", "kid10k,kid20k_full").exit_code == 0 and len(calls) == 1


def test_a_relative_path_can_be_resumed_from_anywhere(calls, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("--outdir", "runs", "--data", "faces")
    assert calls[0][0].data.path == str(faces)


def test_the_embedded_digits_need_no_options(calls, tmp_path):
    result = run("--outdir", tmp_path, "--data", "mnist")
    assert "taking digits32" in result.stdout
    cfg = calls[0][0]
    assert (cfg.preset, cfg.data.path, cfg.model.num_classes, cfg.model.channels) == ("digits32", "mnist", 10, 1)


def test_fp32_is_short_for_precision(calls, tmp_path):
    run("--outdir", tmp_path, "--data", "mnist", "--fp32", 1)
    run("--outdir", tmp_path, "--data", "mnist", "--fp32", 0)
    assert [call[0].precision for call in calls] == ["fp32", "auto"]


@pytest.fixture
def stopped(calls, faces, tmp_path) -> Path:
    """The directory of a run that was stopped."""
    run("--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64")
    run_dir = calls.pop()[1]
    save_state(run_dir / STATE, {"nimg": 9100})
    return run_dir


def test_resume_needs_no_other_option(calls, stopped):
    result = run("--resume", stopped)
    assert result.exit_code == 0, result.output
    ((cfg, run_dir, resume, _),) = calls
    assert (run_dir, resume) == (stopped, True)
    assert cfg == stored_options(stopped)


def test_resume_accepts_what_repeats_or_does_not_matter(calls, stopped):
    result = run("--resume", stopped, "--cfg", "faces64", "--outdir", stopped.parent, "--threads", 2)
    assert result.exit_code == 0, result.output
    assert calls[0][0].threads == 2


def stored_options(run_dir: Path) -> RunConfig:
    return parse_options(run_dir / OPTIONS)


def test_the_folder_of_the_cache_is_said_by_commands_and_never_by_a_file(calls, faces, tmp_path, no_footprint):
    own = tmp_path / "own"
    plan = run("--outdir", tmp_path / "runs", "--data", faces, "--cache", own, "-n")
    assert f"MB in {own / f'{faces.name}.cache'} (" in plan.stdout and not own.exists()
    assert run("--outdir", tmp_path / "runs", "--data", faces, "--cache", own).exit_code == 0
    ((cfg, run_dir, _, _),) = calls
    assert cfg.data.cache == str(own) and list(own.rglob("*.u8"))
    stored = json.loads((run_dir / OPTIONS).read_text())
    assert stored["data"]["cache"] == ""
    stored["data"]["cache"] = "/elsewhere"
    (run_dir / OPTIONS).write_text(json.dumps(stored))
    assert stored_options(run_dir).data.cache == ""


def test_a_longer_run_is_stored_and_nothing_else(calls, stopped, no_footprint):
    before, longer = stored_options(stopped), FACES64.total_kimg + 1
    assert run("--resume", stopped, "--kimg", longer, "--threads", 2, "-n").exit_code == 0
    assert stored_options(stopped) == before, "a dry run writes nothing"
    result = run("--resume", stopped, "--kimg", longer, "--threads", 2)
    assert result.exit_code == 0, result.output
    assert (calls[0][0].total_kimg, calls[0][0].threads) == (longer, 2)
    assert stored_options(stopped) == replace(before, total_kimg=longer)
    run("--resume", stopped)
    assert calls[1][0].total_kimg == longer


@pytest.fixture
def no_footprint(monkeypatch) -> None:
    """Plans that do not say how much memory a run takes, as finding that out takes long."""
    monkeypatch.setattr("training.runs.launch.footprint", lambda *_: lambda resolution: (1 << 30, 1))


@pytest.fixture
def machine(monkeypatch) -> Costs:
    """What training costs on the machine of the test."""
    costs = Costs({8: 0.1, 16: 0.2, 32: 0.3, 64: 0.4}, {8: 0.1, 16: 0.1, 32: 0.1, 64: 0.1}, save=1.0)
    monkeypatch.setattr("training.runs.launch.costs_of", lambda cfg: costs)
    return costs


def test_hours_become_numbers_of_an_ordinary_run(calls, faces, tmp_path, machine, no_footprint):
    asked = ["--data", faces, "--cfg", "faces64", "--hours", 2]
    plan = run(*asked, "-n")
    assert plan.exit_code == 0 and not calls and not (tmp_path / "runs").exists(), plan.output
    assert "Planned for 2 h" in plan.stdout and "32: 53.3" in plan.stdout
    result = run("--outdir", tmp_path / "runs", *asked)
    assert result.exit_code == 0 and "Planned for 2 h" in result.stdout, result.output
    ((cfg, run_dir, _, _),) = calls
    assert stored_options(run_dir) == cfg and cfg.time_limit is not None
    assert sum(parts(cfg, machine).values()) == pytest.approx(7200, rel=0.01)
    typed = ["--kimg", cfg.total_kimg, "--lod-kimg", cfg.growth.stable_kimg, "--fade-kimg", cfg.growth.fade_kimg,
             "--anneal-kimg", cfg.growth.anneal_kimg]  # fmt: skip
    run("--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64", *typed)
    assert calls[1][0] == replace(cfg, hours=None, time_limit=None)


def test_a_run_that_is_prolonged_forgets_its_hours(calls, faces, tmp_path, machine):
    run("--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64", "--hours", 2)
    cfg, run_dir = calls[0][:2]
    (run_dir / STATE).touch()
    assert run("--resume", run_dir).exit_code == 0
    assert calls[1][0] == cfg, "without --kimg, it follows its plan"
    assert run("--resume", run_dir, "--kimg", cfg.total_kimg).exit_code == 0
    assert calls[2][0] == stored_options(run_dir) == replace(cfg, hours=None, time_limit=None)


def test_moved_data_are_found_when_named(calls, stopped, faces):
    moved = faces.rename(faces.with_name("elsewhere"))
    assert run("--resume", stopped).exit_code == 2
    assert run("--resume", stopped, "--data", moved).exit_code == 0
    assert calls[0][0].data.path == str(moved)


def test_names_of_classes_that_have_changed_are_said(calls, faces, tmp_path):
    labels = {"labels": [[f"{i}.png", i % 2] for i in range(4)], "class_names": ["dog", "cat"]}
    (faces / "dataset.json").write_text(json.dumps(labels))
    run("--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64", "--cond", 1)
    run_dir = calls.pop()[1]
    save_state(run_dir / STATE, {"nimg": 9100})
    assert "differ" not in run("--resume", run_dir).output
    write_options(run_dir, replaced(stored_options(run_dir), {"data.class_names": ("cat", "dog")}))
    result = run("--resume", run_dir)
    assert result.exit_code == 0, result.output
    assert "0 was cat and is dog, 1 was dog and is cat; the names of the data are used" in result.output
    assert calls[-1][0].data.class_names == ("dog", "cat")


@pytest.mark.parametrize(
    "extra, says",
    [
        (["--gamma", 7], ["--gamma 7", str(FACES64.loss.r1_gamma)]),
        (["--kimg", 9], ["--kimg 9 ", f"9.1 of {FACES64.total_kimg:g}"]),
        (["--anneal-from", 9, "--anneal-kimg", 3, "--init-res", 64], ["--init-res 64 "]),
        (["--hours", 2], ["--hours 2", "--kimg"]),
        (["--kimg", FACES64.total_kimg + 1, "--gamma", 7], ["--gamma 7", str(FACES64.loss.r1_gamma)]),
        (["--fp32", 1], ["fp32", "auto"]),
        (["--init-from", "x.safetensors"], ["--init-from x.safetensors"]),
        (["--outdir", "/elsewhere"], ["--outdir /elsewhere"]),
    ],
)
def test_resume_refuses_what_contradicts_the_run(calls, stopped, extra, says):
    result = run("--resume", stopped, *extra)
    assert result.exit_code == 2 and not calls
    assert all(part in result.stderr for part in says)


def test_resume_refuses_changed_data(calls, stopped, faces):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(faces / "new.png")
    result = run("--resume", stopped)
    assert result.exit_code == 2 and "changed" in result.stderr and not calls


@pytest.mark.parametrize("arguments, says", [
    ([], "--data"),
    (["--data", "FACES"], "--outdir"),
    (["--data", "absent.zip"], "absent.zip"),
    (["--data", "FACES", "--cfg", "faces128"], "--resolution 64"),
    (["--data", "FACES", "--cfg", "faces65"], "faces64"),
    (["--data", "FACES", "--cond", 1], "--cond 0"),
    (["--data", "FACES", "--batch", "8:16"], "--batch"),
    (["--data", "FACES", "--batch", "20"], "--batch 16"),
    (["--data", "FACES", "--gama", "7"], "--gamma"),
    (["--data", "FACES", "--hours", "2", "--kimg", "50"], "--kimg 50"),
    (["--data", "FACES", "--hours", "0"], "--hours 0"),
    (["--data", "FACES", "--hours", "2"], "--outdir"),
    (["--data", "FACES", "--fp32", 1, "--precision", "bf16"], "--fp32"),
    (["--data", "FACES", "--outdir", "runs", "--init-from", "absent.safetensors"], "absent.safetensors"),
    (["--data", "FACES", "--device", "gpu"], "--device gpu"),
    (["--data", "FACES", "--outdir", "FACES/0.png"], "--outdir"),
    (["--data", "FACES", "--outdir", "FACES/0.png/runs"], "--outdir"),
    (["--resume", "FACES"], "training_options.json"),
])  # fmt: skip
def test_mistakes_get_one_line_and_exit_code_2_and_leave_nothing(calls, faces, tmp_path, arguments, says):
    before = sorted(tmp_path.rglob("*"))
    result = run(*[str(a).replace("FACES", str(faces)) for a in arguments])
    assert result.exit_code == 2 and not calls
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and says in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_tells_everything_and_writes_nothing(calls, faces, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = run("--data", faces, "--cfg", "faces64", "--batch", "8:8,4", "-n")
    assert result.exit_code == 0, result.output
    assert all(
        word in result.stdout
        for word in ("growth.batch", "8:8,4", "64x64", "fade", "Parameters", "Memory", "growth.webp")
    )
    assert "images 64x64 RGB" in result.stdout
    assert not calls and sorted(tmp_path.rglob("*")) == before


def test_help_names_what_the_field_knows_and_every_preset():
    text = run("--help").output
    known = """--outdir --data --cfg --gpus --batch --batch-gpu --kimg --gamma --r1-interval --mirror --cond --seed
        --snap --resume --init-from --loss --fp32 --device --threads --desc --ema-kimg --style-mixing-prob --init-res
        --lod-kimg --fade-kimg --lr --dry-run --subset --tick kimg phase faces64 ffhq1024"""
    assert [word for word in known.split() if word not in text] == []


def test_gpus_choose_the_published_batches(calls, tmp_path, no_footprint):
    folder = tmp_path / "big"
    folder.mkdir()
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(folder / "0.png")
    asked = ["--outdir", tmp_path / "runs", "--data", folder, "--cfg", "ffhq256"]
    for gpus, batch in ((1, "128:16,256:8"), (2, "128:16,256:8"), (4, "128:16,16"), (8, "64:32,32")):
        plan = run(*asked, "--gpus", gpus, "-n")
        assert plan.exit_code == 0 and batch in plan.stdout, plan.output
    refused = run(*asked, "--gpus", 8)
    assert refused.exit_code == 2 and "--gpus 8" in refused.output and not calls and not (tmp_path / "runs").exists()


def test_a_size_that_cannot_grow_is_refused_by_both_tools_in_the_same_words(calls, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(folder / "0.png")
    trained = run("--outdir", tmp_path / "runs", "--data", folder)
    converted = CliRunner().invoke(dataset_tool.main, ["--source", str(folder), "--dest", str(tmp_path / "odd.zip")])
    assert trained.exit_code == converted.exit_code == 2 and not calls
    assert trained.stderr == converted.stderr.splitlines()[-1] + "\n" and "base with 4 to 15" in trained.stderr
    assert list(tmp_path.iterdir()) == [folder]
