"""The command that finds latents of photographs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.cli import generate, project
from stylegan.editing.film_files import write_film
from stylegan.latents.latents import joined, load_latents, save_latents
from stylegan.projection import alignment
from stylegan.projection import job as jobs
from stylegan.projection.projector import Projector
from torch_utils.images.films import film_at, frames_in

FAST = {"--num-steps": 6, "--plus-steps": 4, "--pti-steps": 3, "--w-samples": 50}


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (name, size) in enumerate({"eva.png": (16, 16), "tom.jpg": (40, 32), "ida.png": (16, 16)}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def run(models, tmp_path, command_line):
    def run(name: str, target: Path, *options: object, outdir: str = "out") -> Result:
        defaults = {"--network": models / f"{name}.safetensors", "--target": target, "--outdir": tmp_path / outdir,
                    "--device": "cpu", **FAST}  # fmt: skip
        return CliRunner().invoke(project.main, command_line(defaults, *options))

    return run


def report(folder: Path) -> dict[str, dict[str, Any]]:
    return {photo["name"]: photo for photo in json.loads((folder / "report.json").read_text())["photos"]}


def test_a_folder_of_photos(run, photos, models, tmp_path):
    (photos / "broken.png").write_bytes(b"not an image")
    result = run("faces", photos, "--space", "w+", "--pti", "--report", "pixels", "--save-video", "webp", "--batch", 2)
    assert result.exit_code == 0, result.output
    out, snap = tmp_path / "out", load_snapshot(models / "faces.safetensors")
    assert (
        "tom.jpg: 40x32 cut to 32x32 resized to 16x16" in result.output and "broken.png: not an image" in result.output
    )
    for name, found in report(out).items():
        latents = load_latents(out / f"{name}.latent.safetensors", snap)
        assert latents.names == (name,) and latents.plus and len(latents.noise) == 6
        assert Image.open(out / f"{name}.png").size == (48, 16) and Image.open(out / f"{name}.webp").n_frames >= 10
        assert set(found["found"]) == {"discriminator", "pixels", "mse"} and found["steps"] == 10
        assert found["pti"]["steps"] == 3 and found["pti"]["found"]["mse"] != found["found"]["mse"]
    assert set(report(out)) == {"eva", "ida", "tom"} and not (out / "projection-state.pt").exists()
    assert "mean of all" in result.output and "3 photographs projected" in result.output
    named = f"{out}/eva.latent.safetensors, .delta.safetensors, .png, .webp, and report.json"
    assert named in result.output.splitlines()[-1] and (out / "eva.delta.safetensors").is_file()


def test_levels_and_what_is_left_out_are_said(run, photos):
    Image.fromarray(np.full((16, 16), 100, np.uint16)).save(photos / "deep.tif")
    (photos / "list.txt").touch()
    result = run("faces", photos, "--levels", "0:200", "-n")
    assert result.exit_code == 0, result.output
    assert "1 other file (1 .txt) left out" in result.output
    assert "deep.tif: 16-bit values, 0:200 as black to white" in result.output
    result = run("faces", photos / "eva.png", "--levels", "0:4095")
    assert (result.exit_code, "these images have 8 bits" in result.output) == (2, True)
    assert "expected auto, full or MIN:MAX" in run("faces", photos, "--levels", "12").output


def test_generate_shows_what_was_found_and_tuned(run, photos, models, tmp_path):
    assert run("faces", photos / "eva.png", "--pti").exit_code == 0
    out = tmp_path / "out"
    words = ["--network", models / "faces.safetensors", "--delta", out / "eva.delta.safetensors", "--device", "cpu",
             "--seeds", out / "eva.latent.safetensors", "--outdir", tmp_path / "again"]  # fmt: skip
    assert CliRunner().invoke(generate.main, list(map(str, words))).exit_code == 0
    shown, found = np.asarray(Image.open(tmp_path / "again/eva.png")), np.asarray(Image.open(out / "eva.png"))
    assert np.array_equal(shown, found[:, 16:32])
    assert np.array_equal(found[:, :16], np.asarray(Image.open(photos / "eva.png")))


def test_the_same_command_does_not_repeat_what_is_done(run, photos, tmp_path):
    first = run("faces", photos)
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = run("faces", photos)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == files
    assert again.output.splitlines()[-1] == first.output.splitlines()[-1]
    changed = run("faces", photos, "--seed", 1, "--lr", 0.2)
    assert (
        "eva, ida, tom: projected again, because --seed was 0 and is now 1, --lr was 0.1 and is now 0.2\n"
        in changed.output
    )
    assert (tmp_path / "out/eva.latent.safetensors").stat().st_mtime_ns != files["eva.latent.safetensors"]


def test_why_something_is_done_again_is_said(run, photos, tmp_path):
    out = tmp_path / "out"
    assert "again" not in run("faces", photos, "--pti", "--batch", 2).output
    assert "again" not in run("faces", photos, "--pti").output
    assert (
        "eva, ida, tom: tuned again, because --pti-steps was 3 and is now 2\n"
        in run("faces", photos, "--pti", "--pti-steps", 2).output
    )
    (out / "tom.latent.safetensors").unlink()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photos / "eva.png")
    said = run("faces", photos).output
    assert "eva: projected again, because the photograph has changed\n" in said
    assert "tom: projected again, because tom.latent.safetensors is missing\n" in said and "ida:" not in said
    assert [p.name for p in out.glob("*.delta.safetensors")] == [
        "ida.delta.safetensors"
    ]  # the others were of old pivots
    assert "ida, tom: projected again, because eva" not in said
    film = run("faces", photos / "ida.png", "--save-video", "webp").output
    assert "ida: projected again, because ida.webp is missing" in film


def test_a_report_of_more_needs_no_search(run, photos, tmp_path):
    assert run("faces", photos, "--pti").exit_code == 0
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
    before = report(tmp_path / "out")
    result = run("faces", photos, "--pti", "--report", "pixels")
    assert result.exit_code == 0 and "pixels found" in result.output and "pixels tuned" in result.output
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")} == files
    for name, found in report(tmp_path / "out").items():
        for part in ("mean", "found"):
            assert found[part]["pixels"] > 0 and found[part]["mse"] == before[name][part]["mse"]
        assert found["pti"]["found"]["mse"] == before[name]["pti"]["found"]["mse"]


@pytest.mark.parametrize(("stop", "said", "left"), [
    (0, "0 of 3 photographs projected; nothing else is saved", False),
    (3, "0 of 3 photographs projected; the search in progress is saved", True),
    (8, "1 of 3 photographs projected; the search in progress is saved", True),
])  # fmt: skip
def test_ctrl_c_says_what_is_saved_and_leaves_no_empty_folder(stop, said, left, run, photos, tmp_path, monkeypatch):
    steps: list[int] = []

    def interrupted(bar: Any, step: Any) -> None:
        steps.append(step.step)
        if len(steps) == stop:
            os.kill(os.getpid(), signal.SIGINT)  # as the terminal does: the step ends, and the search is saved

    monkeypatch.setattr(jobs, "show", interrupted)
    if stop == 0:
        monkeypatch.setattr(Projector, "project", Mock(side_effect=KeyboardInterrupt))
    result = run("faces", photos, "--batch", 1)
    assert result.exit_code == 130 and said in result.output and "the same command" in result.output
    assert len(steps) == stop and (tmp_path / "out").exists() == left
    monkeypatch.undo()
    if left:
        assert run("faces", photos, "--batch", 1).exit_code == 0 and not (tmp_path / "out/projection-state.pt").exists()


@pytest.mark.parametrize("stop", [3, 8])
def test_a_search_that_was_stopped_goes_on_to_the_same_end(stop, run, photos, models, tmp_path, monkeypatch):
    options = ("--space", "w+", "--batch", 3, "--save-video", "webp")
    assert run("faces", photos, *options, outdir="whole").exit_code == 0
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", -1.0)
    seen: list[int] = []

    def interrupted(bar: Any, step: Any) -> None:
        seen.append(step.step)
        if len(seen) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "show", interrupted)
    result = run("faces", photos, *options)
    assert result.exit_code == 130 and (tmp_path / "out/projection-state.pt").exists()
    assert run("faces", photos, *options).exit_code == 0
    assert len(seen) == 11  # each step once, but for the one that was interrupted
    for name in ("eva.png", "tom.png", "ida.webp"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    snap = load_snapshot(models / "faces.safetensors")
    found, wanted = (load_latents(tmp_path / folder / "tom.latent.safetensors", snap) for folder in ("out", "whole"))
    assert torch.equal(found.ws, wanted.ws) and all(map(torch.equal, found.noise, wanted.noise))


def test_batches_do_not_change_the_latents(run, photos, models, tmp_path):
    snap = load_snapshot(models / "faces.safetensors")
    for batch in (1, 3):
        words = ["--batch", batch, "--dtype", "float32"]  # bfloat16 rounds more
        assert run("faces", photos, *words, outdir=f"by{batch}").exit_code == 0
    a, b = (load_latents(tmp_path / f"by{batch}/tom.latent.safetensors", snap) for batch in (1, 3))
    torch.testing.assert_close(a.ws, b.ws, rtol=1e-2, atol=2e-3)


def test_grey_networks_with_classes(run, photos, models, tmp_path):
    result = run("digits", photos, "--class", "3,7")
    assert result.exit_code == 0 and "eva.png: colour made grey" in result.output
    found = load_latents(tmp_path / "out/ida.latent.safetensors", load_snapshot(models / "digits.safetensors"))
    assert found.c is not None and found.c.tolist() == [7]
    assert "10 classes; choose with --class" in run("digits", photos).output
    assert run("pets", photos, "--class", "dog", outdir="pets").exit_code == 0
    found = load_latents(
        next((tmp_path / "pets").glob("*.latent.safetensors")), load_snapshot(models / "pets.safetensors")
    )
    assert found.c is not None and found.c.tolist() == [1]


@pytest.fixture
def group(tmp_path, monkeypatch) -> Path:
    """A photograph with three faces."""
    faces = [np.array([[x - 5, 20], [x + 5, 20], [x - 4, 32], [x + 4, 32]], np.float64) for x in (20, 60, 100)]
    monkeypatch.setattr(alignment, "face_finder", lambda given: lambda image: faces[: image.width // 40])
    folder = tmp_path / "photos"
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (60, 120, 3), np.uint8)).save(folder / "group.png")
    return folder / "group.png"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.json"}


def test_each_face_of_a_group_has_results_of_its_own(run, group, models, tmp_path):
    out = tmp_path / "out"
    result = run("faces", group, "--align", "--face", "1,2", "--pti")
    assert result.exit_code == 0 and "group.png, face 2: aligned (number 2 of 3 faces)" in result.output
    before = contents(out)
    third = run("faces", group, "--align", "--face", 3)
    assert third.exit_code == 0 and "replaces" not in third.output
    assert contents(out).items() > before.items() and set(report(out)) == {"group-face1", "group-face2", "group-face3"}
    snap = load_snapshot(models / "faces.safetensors")
    crops = [load_latents(out / f"group-face{i}.latent.safetensors", snap).crops[0] for i in (1, 2, 3)]
    assert len({crop.corners for crop in crops}) == 3 and len({crop.photo for crop in crops}) == 1
    assert report(out)["group-face2"]["file"] == str(group) and report(out)["group-face2"]["face"] == 2


def test_two_people_of_one_name_are_not_mixed_up(run, photos, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "ida.png", other / "eva.png")
    first = run("faces", photos / "eva.png", "--pti")
    assert first.exit_code == 0 and "replaces" not in first.output
    before = contents(out)
    for flags in ((), ("-n",)):
        refused = run("faces", other / "eva.png", *flags)
        assert refused.exit_code == 2 and contents(out) == before
        assert f"eva.latent.safetensors is of {photos / 'eva.png'}, and would be replaced" in refused.output
        assert "--overwrite" in refused.output
    planned = run("faces", other / "eva.png", "--overwrite", "-n").output
    assert planned.endswith("; replaces 3 older files\n") and contents(out) == before
    assert run("faces", other / "eva.png", "--overwrite").output.endswith("; replaces 3 older files\n")
    assert report(out)["eva"]["file"] == str(other / "eva.png") and not (out / "eva.delta.safetensors").exists()


def test_a_copy_of_a_photograph_is_the_same_one_and_a_newer_neighbour_gets_another_name(run, photos, tmp_path):
    assert run("faces", photos).exit_code == 0
    before = contents(tmp_path / "out")
    shutil.copytree(photos, tmp_path / "copy")
    assert "replaces" not in run("faces", tmp_path / "copy").output and contents(tmp_path / "out") == before
    Image.new("RGB", (16, 16)).save(photos / "eva.bmp")  # sorted before eva.png
    assert run("faces", photos).exit_code == 0
    assert contents(tmp_path / "out").items() > before.items() and "eva-2" in report(tmp_path / "out")


def test_a_file_of_somebody_else_is_not_replaced(run, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/eva.png").write_bytes(b"mine")
    result = run("faces", photos)
    assert result.exit_code == 2 and "eva.png is not in the report there, and would be replaced" in result.output
    assert contents(tmp_path / "out") == {"eva.png": b"mine"}


def test_photographs_without_a_face_are_named_and_counted(run, group, tmp_path):
    for name in ("lake.png", "tree.png"):
        Image.new("RGB", (30, 30)).save(group.parent / name)
    for flags in (("-n",), ()):
        result = run("faces", group.parent, "--align", *flags)
        assert result.exit_code == 0 and ", 2 skipped" in result.output
        assert all(f"{name}: no face was found; try a larger" in result.output for name in ("lake.png", "tree.png"))
    group.unlink()
    result = run("faces", group.parent, "--align", outdir="none")
    assert result.exit_code == 2 and "none of the 2 files" in result.output
    assert "lake.png: no face was found" in result.output and "tree.png: no face was found" in result.output
    few = run("faces", group.parent / "tree.png", "--align", "--face", 2)
    assert few.exit_code == 2 and "tree.png: no face was found" in few.output


def test_an_edited_face_goes_back_into_its_photograph(run, group, models, tmp_path):
    assert run("faces", group, "--align", "--face", 2, "--pti").exit_code == 0
    snap, out = load_snapshot(models / "faces.safetensors"), tmp_path / "out"
    found = load_latents(out / "group-face2.latent.safetensors", snap)
    edited = replace(found, ws=found.ws + 0.5, names=("smile",))
    save_latents(tmp_path / "edit.latent.safetensors", joined([found, edited]), snap)
    words = ("--paste", tmp_path / "edit.latent.safetensors")
    planned = run("faces", group, *words, "-n", outdir="pasted")
    assert "Pasting:    2 images into" in planned.output and not (tmp_path / "pasted").exists()
    result = run("faces", group, *words, "--delta", out / "group-face2.delta.safetensors", outdir="pasted")
    assert result.exit_code == 0 and "2 images pasted" in result.output and "replaces" not in result.output
    before = np.asarray(Image.open(group), int)
    first, second = (
        np.asarray(Image.open(tmp_path / f"pasted/{name}-pasted.png"), int) for name in ("group-face2", "smile")
    )
    for image in (first, second):
        changed = np.abs(image - before).max(axis=(0, 2)) > 0
        assert not changed[:30].any() and not changed[90:].any() and changed[50:70].all()
    assert np.abs(first - second).max() > 0
    again = run("faces", group, *words, outdir="pasted")
    assert again.output.endswith("; replaces 2 older files\n")


@pytest.mark.parametrize(("options", "message"), [
    (("--delta", "a.delta.safetensors"), "--delta has no effect without --paste"),
    (("--paste", "out/eva.latent.safetensors", "--pti"), "--paste does not search"),
    (("--paste", "out/eva.latent.safetensors"), "there is no file out/eva.latent.safetensors"),
])  # fmt: skip
def test_what_cannot_be_pasted_is_one_line(options, message, run, photos):
    result = run("faces", photos, *options)
    assert result.exit_code == 2 and message in result.output


def test_frames_of_a_film_and_given_starts(run, photos, tmp_path):
    assert "6 steps in W; each from the one before" in run("faces", photos, "--sequence", "-n").output
    film = run("faces", photos, "--sequence", "--space", "w+", outdir="film")
    assert film.exit_code == 0 and [record["steps"] for record in report(tmp_path / "film").values()] == [10, 4, 4]
    assert "again" not in run("faces", photos, "--sequence", "--space", "w+", outdir="film").output
    file = tmp_path / "film/eva.latent.safetensors"
    assert f"from {file}" in run("faces", photos, "--start", file, "--space", "w+", "-n").output
    assert run("faces", photos, "--start", file, "--space", "w+").exit_code == 0
    assert {record["steps"] for record in report(tmp_path / "out").values()} == {4}
    assert "use space w+" in run("faces", photos, "--start", file, "-n").output
    assert "for --paste or --start" in run("faces", photos, "--force").output.replace("without", "for")


def test_another_photograph_is_not_pasted_into(run, photos, tmp_path):
    assert run("faces", photos / "eva.png").exit_code == 0
    words = ("--paste", tmp_path / "out/eva.latent.safetensors")
    refused = run("faces", photos / "ida.png", *words, outdir="pasted")
    assert refused.exit_code == 2 and "ida.png is not the file that eva is of" in refused.output
    assert run("faces", photos / "ida.png", *words, "--force", outdir="pasted").exit_code == 0


@pytest.mark.parametrize("faces", ["0", "1,1", "-1", "two", "1-2000"])
def test_numbers_of_faces(faces, run, photos):
    result = run("faces", photos, "--align", f"--face={faces}")
    assert result.exit_code == 2 and "--face must be numbers from 1" in result.output


def test_a_dry_run_writes_nothing(run, photos, tmp_path):
    result = run("faces", photos, "--pti", "-n")
    assert result.exit_code == 0 and not (tmp_path / "out").exists()
    assert "3 of 16x16: eva, ida, tom" in result.output and "6 steps in W, 3 of pivotal tuning" in result.output


@pytest.mark.parametrize(("name", "target", "options", "message"), [
    ("faces", "absent.png", (), "There is no file or folder"), ("faces", "empty", (), "There are no images in"),
    ("faces", "text.png", (), "text.png: not an image"), ("progan", "photos", (), "ProGAN has no w"),
    ("faces", "photos", ("--batch", 0), "got 0"),
    ("faces", "photos", ("--num-steps", 1), "--num-steps must be at least 2, got 1"),
    ("faces", "photos", ("--lr", 0), "--lr must be more than 0, got 0"),
    ("faces", "photos", ("--outdir", "/dev/null"), "/dev/null is a file"),
    ("faces", "photos", ("--face", 2), "have no effect without --align"),
    ("faces", "photos", ("--distance", "l1"), "'l1' is not one"),
    ("faces", "photos", ("--report", "l1"), "'l1' is not a distance"),
    ("faces", "photos", ("--distance-weights", "a.pth"), "the distance is discriminator, which needs none"),
    ("faces", "photos", ("--distance", "lpips-alex", "--distance-weights", "absent.pth"), "cannot read absent.pth"),
    ("faces", "photos", ("--align", "1", "--landmarks", "absent.dat"), "there is no landmark file absent.dat"),
    ("faces", "photos", ("--class", "0"), "unconditional"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line(name, target, options, message, run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("words")
    result = run(name, tmp_path / target, *options)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_missing_options():
    result = CliRunner().invoke(project.main, ["--network", "a"])
    assert result.exit_code == 2 and "--target is missing" in result.output


def test_a_report_of_something_else_is_not_overwritten(run, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.json").write_text("[]")
    result = run("faces", photos)
    assert result.exit_code == 2 and "is not a report of this tool" in result.output


@pytest.mark.parametrize("what", ["", "eva.png"])
def test_the_photographs_themselves_are_safe(what, run, photos):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    result = run("faces", photos / what, "--outdir", photos)
    assert result.exit_code == 2 and "is where the photographs are" in result.output
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


def test_a_film_goes_through_its_latents_and_back_into_itself(run, photos, models, tmp_path, command_line):
    frames = [np.random.default_rng(i).integers(0, 256, (24, 40, 3), np.uint8) for i in range(3)]
    film, out = tmp_path / "walk.gif", tmp_path / "out"
    write_film(film, frames, 25)
    assert run("faces", film, "--levels", "0:9", "--sequence").exit_code == 2
    assert run("faces", film, outdir="one").exit_code == 0 and report(tmp_path / "one").keys() == {"walk"}
    planned = run("faces", film, "--sequence", "-n")
    assert "walk.gif: 3 frames, 25 a second" in planned.output and f", {out}/walk.webp" in planned.output
    assert run("faces", film, "--sequence", "--space", "w+").exit_code == 0
    assert [record["steps"] for record in report(out).values()] == [10, 4, 4]
    made = list(frames_in(film_at(out / "walk.webp")))
    assert [float(frame.seconds) for frame in made] == [0.04] * 3
    found = np.asarray(Image.open(out / "walk-00002.png"))[:, 16:32]
    assert np.array_equal(np.asarray(made[1].image), found)
    again = run("faces", film, "--sequence", "--space", "w+")
    assert "again" not in again.output and "replaces 1 older file" in again.output

    files = ",".join(str(out / f"walk-0000{i}.latent.safetensors") for i in (1, 3))
    pasted = run("faces", film, "--paste", files, outdir="pasted")
    assert pasted.exit_code == 0 and "pasted 2 images into 2 of 3 frames" in pasted.output
    before = [np.asarray(frame.image.convert("RGB")) for frame in frames_in(film_at(film))]
    after = [np.asarray(frame.image) for frame in frames_in(film_at(tmp_path / "pasted/walk-pasted.webp"))]
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [False, True, False]
    twice = run("faces", film, "--paste", f"{files},{files}", outdir="twice")
    assert twice.exit_code == 0 and (tmp_path / "twice/walk-pasted2.webp").is_file()
    other = tmp_path / "other.gif"
    write_film(other, frames[::-1], 25)
    assert "has no frame that walk-00001 is of" in run("faces", other, "--paste", files, outdir="pasted").output
    old = run("faces", film, "--paste", tmp_path / "one/walk.latent.safetensors", outdir="pasted")
    assert old.exit_code == 0 and (tmp_path / "pasted/walk-pasted.png").is_file()


def test_video_files_need_to_be_called_frames(run, tmp_path):
    (tmp_path / "walk.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(50))
    assert "is a film; add --sequence" in run("faces", tmp_path / "walk.mp4").output
    broken = run("faces", tmp_path / "walk.mp4", "--sequence")
    assert broken.exit_code == 2 and "Traceback" not in broken.output and not (tmp_path / "out").exists()


def test_a_start_for_each_photograph(run, photos, tmp_path):
    assert run("faces", photos).exit_code == 0
    words = ("--space", "w+", "--start", tmp_path / "out")
    result = run("faces", photos, *words, outdir="plus")
    assert result.exit_code == 0 and "starts found by their names" in result.output
    two = ",".join(str(tmp_path / f"out/{name}.latent.safetensors") for name in ("eva", "tom"))
    refused = run("faces", photos, "--start", two, outdir="more")
    assert refused.exit_code == 2 and "but not for ida" in refused.output
    refused = run("faces", photos, "--start", two, "--sequence", outdir="more")
    assert refused.exit_code == 2 and "only the first frame starts at latents" in refused.output
