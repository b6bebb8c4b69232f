"""The command that makes films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageSequence

from stylegan.cli import film as interpolate
from stylegan.cli import generate
from stylegan.projection import photos as photographs


@pytest.fixture
def run(models, tmp_path, command_line):
    def run(name: str, *options: object, out: str = "film") -> Result:
        defaults = {"--network": models / f"{name}.safetensors", "--out": tmp_path / out, "--device": "cpu"}
        return CliRunner().invoke(interpolate.main, command_line(defaults, *options))

    return run


@pytest.fixture
def image(models, tmp_path):
    def image(name: str, *options: object) -> np.ndarray:
        words = [
            "--network",
            models / f"{name}.safetensors",
            "--outdir",
            tmp_path / "still",
            "--device",
            "cpu",
            *options,
        ]
        assert CliRunner().invoke(generate.main, [str(word) for word in words]).exit_code == 0
        (path,) = (tmp_path / "still").iterdir()
        found = pixels(path)
        path.unlink()
        return found

    return image


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def film(folder: Path) -> list[np.ndarray]:
    return [pixels(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("path", ["", "--space z", "--path cubic", "--loop --path cubic --space z --ease sine",
                                    "--path circular"])  # fmt: skip
def test_the_frame_of_a_keyframe_is_the_image_of_its_seed(run, image, tmp_path, path):
    result = run("faces", "--seeds", "3-4,9", "--frames", 3, "--batch", 4, *path.split())
    assert result.exit_code == 0, result.output
    frames = film(tmp_path / "film")
    closed = "loop" in path or "circular" in path
    assert len(frames) == (9 if closed else 7) and f"{len(frames)} frames" in result.stdout
    for number, seed in ((0, 3), (3, 4), (6, 9)):
        np.testing.assert_array_equal(frames[number], image("faces", "--seeds", seed))


def test_frames_do_not_depend_on_the_batch(run, tmp_path):
    for batch in (1, 5):
        run("faces", "--seeds", "3-4", "--frames", 6, "--batch", batch, "--even-speed", out=f"{batch}")
    assert all((a == b).all() for a, b in zip(film(tmp_path / "1"), film(tmp_path / "5"), strict=True))


def test_a_grid_shows_films_side_by_side(run, tmp_path):
    assert run("faces", "--seeds", "0-5", "--frames", 2, "--grid", "3x1", "--batch", 2).exit_code == 0
    run("faces", "--seeds", "2-3", "--frames", 2, out="one")
    for whole, one in zip(film(tmp_path / "film"), film(tmp_path / "one"), strict=True):
        assert whole.shape == (16, 48, 3)
        np.testing.assert_array_equal(whole[:, 16:32], one)


def test_a_sweep_of_truncation(run, image, tmp_path):
    assert run("faces", "--seeds", 5, "--frames", 4, "--psi-sweep", "0:1").exit_code == 0
    frames = film(tmp_path / "film")
    for number, psi in ((0, 0), (2, 0.5), (4, 1)):
        np.testing.assert_array_equal(frames[number], image("faces", "--seeds", 5, "--trunc", psi))
    assert run("faces", "--seeds", 5, "--frames", 4, "--psi-sweep", "0:1", "--loop", out="back").exit_code == 0
    assert all((a == b).all() for a, b in zip(film(tmp_path / "back"), [*frames[::2], frames[2]], strict=True))


def test_classes(run, image, tmp_path):
    assert run("digits", "--seeds", "1,1,2", "--class", "3,8,0", "--space", "z", "--frames", 2).exit_code == 0
    frames = film(tmp_path / "film")
    for number, seed, digit in ((0, 1, 3), (2, 1, 8), (4, 2, 0)):
        np.testing.assert_array_equal(frames[number], image("digits", "--seeds", seed, "--class", digit))


def test_classes_by_name(run, tmp_path):
    assert run("pets", "--seeds", "1,1", "--class", "cat,sea lion", "--frames", 2, out="names").exit_code == 0
    assert run("pets", "--seeds", "1,1", "--class", "0,2", "--frames", 2, out="numbers").exit_code == 0
    for a, b in zip(film(tmp_path / "names"), film(tmp_path / "numbers"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "kind"), [("faces", "gif"), ("digits", "webp"), ("icons", "apng")])
def test_films(run, tmp_path, name, kind):
    words = ["--class", 0] * (name == "digits")
    assert run(name, "--seeds", "0-2", "--frames", 4, *words, out=f"a.{kind}").exit_code == 0
    with Image.open(tmp_path / f"a.{kind}") as image:
        assert len(list(ImageSequence.Iterator(image))) == 9 and image.size == (
            (24, 16) if name == "icons" else (16, 16)
        )


def test_dry_run_names_the_film_and_writes_nothing(run, tmp_path):
    result = run("faces", "--seeds", "0-7", "--grid", "2x2", "--loop", "--frames", 30, "--fps", 20, "-n", out="a.gif")
    for part in ("240 of 16x16", "60 frames, 3.00 s", "a.gif"):
        assert part in result.stdout, result.output
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_gif_is_said_as_it_is(run, tmp_path):
    """At 40 frames a second, 5 frames take 12.5 hundredths, of which GIF can store only whole ones."""
    assert "5 frames, 0.13 s" in run("faces", "--seeds", "0-1", "--frames", 4, "--fps", 40, out="a.gif").stdout
    with Image.open(tmp_path / "a.gif") as image:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) == 130


def test_frames_too_large_for_the_format_are_refused_before_any_is_drawn(run, tmp_path):
    refused = run("faces", "--seeds", "0-1", "--psi-sweep", "0:1", "--grid", "1025x1", "-n", out="a.webp")
    assert refused.exit_code == 2 and "can have 16383 pixels a side" in refused.stderr, refused.output


def test_photographs_are_keyframes_and_mistakes_are_reported_before_any_projection(run, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, name in enumerate(("eva", "tom")):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(
            photos / f"{name}.png"
        )
    seeds = f"{photos / 'eva.png'},4,{photos / 'tom.png'}"
    planned = run("faces", "--seeds", seeds, "--num-steps", 3, "--frames", 1, "-n").stdout
    assert "eva.png, tom.png: each projected into W in 3 steps, distance discriminator" in planned
    result = run("faces", "--seeds", seeds, "--num-steps", 3, "--frames", 1)
    assert result.exit_code == 0 and "Projecting 2 photos: 3/3 step" in result.stderr, result.output
    assert len(film(tmp_path / "film")) == 3
    with monkeypatch.context() as patch:
        patch.setattr(photographs, "latents_of", None)  # would fail
        for options, says in ((["--grid", "2x1"], "3 keyframes cannot be divided equally among 2 films"),
                              (["--frames", 0], "--frames must be at least 1, got 0"),
                              (["--num-steps", 1], "--num-steps must be at least 2, got 1"),
                              (["--seeds", f"1,{photos / 'eva.png'},x.latent.safetensors"], "no file x.latent"),
                              (["--space", "z"], "z")):  # fmt: skip
            refused = run("faces", "--seeds", seeds, *options, out="other")
            assert refused.exit_code == 2 and says in refused.stderr.splitlines()[-1], refused.output
        own = run("faces", "--seeds", seeds, out="photos/eva.png")
        assert own.exit_code == 2 and "is one of the inputs" in own.stderr


def test_a_film_that_is_replaced_is_said(run):
    first, again = (run("faces", "--seeds", "0-1", "--frames", 1, out="a.gif").stdout for _ in range(2))
    assert "2 frames" in first and "replaces" not in first and "a.gif; replaces 1 older file" in again


def test_defaults_are_shown_as_they_are_typed():
    shown = " ".join(CliRunner().invoke(interpolate.main, ["--help"]).stdout.split())
    assert "[default: 1x1]" in shown and "1, 1" not in shown


@pytest.mark.parametrize(("name", "options", "says"), [
    ("faces", "", "--seeds is missing"),
    ("faces", "--seeds 0", "two keyframes"),
    ("faces", "--seeds 0-3 --path circular", "2 or 3"),
    ("faces", "--seeds 0,1,0 --path circular", "on one line"),
    ("faces", "--seeds 0-4 --grid 2x2", "multiple of 4"),
    ("faces", "--seeds 0-4 --grid auto", "COLUMNSxROWS"),
    ("faces", "--seeds 0-1 --frames 0", "--frames must be at least 1, got 0"),
    ("faces", "--seeds 0-1 --fps 0", "got 0"),
    ("faces", "--seeds 0-1 --psi-sweep 1", "FROM:TO"),
    ("faces", "--seeds 0-1 --psi-sweep 0:1 --trunc 0.5", "leave out --trunc"),
    ("faces", "--seeds 0-1 --class 1", "unconditional"), ("faces", "--seeds 0,,1", "'0,,1' has an empty item"),
    ("missing", "--seeds 0-1 --frames 0", "--frames must be at least 1, got 0"),
    ("digits", "--seeds 0-1", "10 classes; choose"),
    ("digits", "--seeds 0-2 --class 0,1", "2 classes for 3 seeds"),
    ("progan", "--seeds 0-1 --space w", "ProGAN has no w"),
    ("faces", "--seeds 0-1 --batch 0", "got 0"),
    ("missing", "--seeds 0-1", "missing.safetensors"),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, name, options, says):
    result = run(name, *options.split())
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.output
    assert list(tmp_path.iterdir()) == []


def test_other_kinds_of_file_are_refused(run):
    result = run("faces", "--seeds", "0-1", out="a.avi")
    assert result.exit_code == 2 and ".mp4, .gif" in result.stderr
