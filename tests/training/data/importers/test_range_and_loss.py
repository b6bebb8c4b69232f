"""What a conversion must not do silently: make images dark, lose images, write over files, change colours."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_utils.errors import UserError
from torch_utils.images import NEEDS_HEIF
from torch_utils.images.room import Room
from torch_utils.text import parse_levels
from training.data.archive import Archive
from training.data.importers import convert as conversion
from training.data.importers import inspect as inspection
from training.data.importers.convert import Job, run
from training.data.importers.inspect import open_source
from training.data.importers.rules import Rules
from training.data.importers.source import Source
from training.data.sizes import Size

PROFILES = Path(__file__).parents[3] / "data/profiles"
SMALL = Rules(resolution=Size(8, 8))
RAMP = np.arange(64).reshape(8, 8)


def grey16(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint16)).save(path)


def converted(source: Path, rules: Rules = SMALL, /, **job: object) -> tuple[list[np.ndarray], str]:
    """The images of the archive, and all that is said."""
    said: list[str] = []
    dest = source.parent / "out.zip"
    run(replace(Job(source, dest, overwrite=True), **job), rules, say=said.append)  # type: ignore[arg-type]
    archive = Archive.open(dest)
    return [archive.read(index) for index in range(len(archive))], "\n".join(said)


def text_of(said: str, heading: str) -> str:
    """The row of the table with this heading; "" if there is none."""
    return next((line[12:] for line in said.splitlines() if line.startswith(heading.ljust(12))), "")


# Levels


def test_one_range_holds_for_the_whole_source(tmp_path: Path) -> None:
    grey16(tmp_path / "in/a.tif", RAMP * 65)  # 0 to 4095
    grey16(tmp_path / "in/b.tif", RAMP)  # a dark image stays dark beside it
    images, said = converted(tmp_path / "in")
    np.testing.assert_array_equal(images[0][..., 0], RAMP * 65 >> 4)
    np.testing.assert_array_equal(images[1][..., 0], RAMP >> 4)
    assert text_of(said, "Values") == "0 to 4095 in 16-bit (2)"
    assert "0:4095 in 16-bit images (--levels auto)" in text_of(said, "Levels")


@pytest.mark.parametrize(("levels", "expected"), [
    ("auto", RAMP * 65 >> 4), ("full", RAMP * 65 >> 8), ("0:2047", (RAMP * 65 >> 3).clip(0, 255)),
])  # fmt: skip
def test_the_rule_can_be_given(tmp_path: Path, levels: str, expected: np.ndarray) -> None:
    grey16(tmp_path / "in/a.png", RAMP * 65)
    images, said = converted(tmp_path / "in", replace(SMALL, levels=parse_levels(levels)))
    np.testing.assert_array_equal(images[0][..., 0], expected)
    assert f"--levels {levels}" in text_of(said, "Levels")
    assert ("will be dark" in text_of(said, "Dark")) == (levels == "full")


def test_dark_images_are_pointed_out_whatever_their_depth(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray((RAMP // 8).astype(np.uint8)).save(tmp_path / "in/mask.png")
    images, said = converted(tmp_path / "in")
    assert "1 8-bit image will be dark" in text_of(said, "Dark")
    images, said = converted(tmp_path / "in", replace(SMALL, levels=parse_levels("0:7")))
    assert text_of(said, "Dark") == "" and images[0].max() == 255
    Image.new("RGBA", (8, 8), (0, 0, 0, 9)).save(tmp_path / "in/mask.png")  # a black shape on nothing
    assert text_of(converted(tmp_path / "in")[1], "Dark") == ""


def test_an_offset_does_not_leave_flat_images(tmp_path: Path) -> None:
    grey16(tmp_path / "in/a.png", RAMP * 12 + 32844)
    grey16(tmp_path / "in/b.png", RAMP * 12 + 32896)
    images, said = converted(tmp_path / "in")
    np.testing.assert_array_equal(images[0][..., 0], np.rint(RAMP * 12 * (255 / 808)))
    assert "32844:33652 in 16-bit images (--levels auto)" in text_of(said, "Levels")
    assert text_of(said, "Flat") == ""
    for levels in ("full", "0:4095"):
        images, said = converted(tmp_path / "in", replace(SMALL, levels=parse_levels(levels)))
        assert "2 16-bit images will be almost one grey: most of their values, 32844 to 33652, become" in said
        assert "a.png, b.png; if they should not be, say with --levels 32844:33652" in text_of(said, "Flat")


def test_images_of_fewer_bits_than_the_others_are_named(tmp_path: Path) -> None:
    for name in "abc":
        grey16(tmp_path / f"in/{name}.png", RAMP * 1040)
    grey16(tmp_path / "in/twelve.tif", RAMP * 65)
    Image.new("L", (8, 8), 128).save(tmp_path / "in/grey.png")
    said = converted(tmp_path / "in")[1]
    assert "1 16-bit image will be dark" in text_of(said, "Dark") and "white: twelve.tif; if" in text_of(said, "Dark")
    assert "convert them apart from the others" in text_of(said, "Dark")
    assert "1 8-bit image will be almost one grey" in text_of(said, "Flat") and "apart" in text_of(said, "Flat")


def test_floating_point_is_taken_or_refused_with_the_option_that_helps(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray((RAMP / 63).astype(np.float32)).save(tmp_path / "in/a.tif")
    assert converted(tmp_path / "in")[0][0][..., 0].tolist() == np.rint(RAMP / 63 * 255).tolist()
    Image.fromarray((RAMP * 9.5).astype(np.float32)).save(tmp_path / "in/b.tif")
    with pytest.raises(UserError, match="--levels 0:598.5"):
        converted(tmp_path / "in")
    assert len(converted(tmp_path / "in", replace(SMALL, levels=parse_levels("0:600")))[0]) == 2


def test_training_refuses_deep_images_instead_of_darkening_them(tmp_path: Path) -> None:
    grey16(tmp_path / "in/a.png", RAMP)
    with pytest.raises(UserError, match="16-bit pixels: convert it with"):
        Archive.open(tmp_path / "in")


# Colours, frames, borders


def test_profiles_become_srgb_and_the_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wide = (PROFILES / "wide.icc").read_bytes()
    Image.new("RGB", (8, 8), (200, 80, 60)).save(tmp_path / "in/a.png", icc_profile=wide)
    Image.new("RGB", (8, 8), (200, 80, 60)).save(tmp_path / "in/b.png", icc_profile=b"broken")
    images, said = converted(tmp_path / "in")
    assert images[0][0, 0].tolist() == [230, 79, 56] and images[1][0, 0].tolist() == [200, 80, 60]
    assert text_of(said, "Profiles") == (
        "converted to sRGB from Wide colours (1); an unusable profile, ignored (1): b.png"
    )
    assert (Archive.open(tmp_path / "in").read(0) == images[0]).all()


def test_inks_without_a_profile_and_colours_named_by_cameras_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    camera = Image.Exif()
    camera.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {1: "R03"}})
    Image.new("RGB", (8, 8), (200, 80, 60)).save(tmp_path / "in/a.png", exif=camera.tobytes())
    Image.new("CMYK", (8, 8)).save(tmp_path / "in/b.tif")
    images, said = converted(tmp_path / "in")
    assert images[0][0, 0].tolist() == [230, 79, 56]
    assert text_of(said, "Profiles") == (
        "converted to sRGB from Adobe RGB (EXIF) (1); CMYK without a profile, converted roughly (1): b.tif"
    )


def test_frames_and_pages_that_are_left_out_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "in/a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "in/b.tif", save_all=True, append_images=frames[1:2])
    frames[0].save(tmp_path / "in/c.png")
    _, said = converted(tmp_path / "in")
    assert "3 more are left out of 2 files: a.gif, b.tif;" in text_of(said, "Frames")
    frames[0].save(tmp_path / "in/d.mpo", save_all=True, append_images=frames[1:2])
    assert "4 more are left out of 3 files: a.gif, b.tif, d.mpo;" in text_of(converted(tmp_path / "in")[1], "Frames")


@pytest.mark.parametrize(("border", "expected"), [(None, 0), ("black", 0), ("white", 255), ("edge", 99), ("blur", 99)])
def test_what_lies_beside_an_image_that_is_fitted(tmp_path: Path, border: str | None, expected: int) -> None:
    (tmp_path / "in").mkdir()
    wide = np.full((8, 16, 3), 99, np.uint8)
    wide[:, 4:12] = 200
    Image.fromarray(wide).save(tmp_path / "in/a.png")
    rules = Rules(resolution=Size(16, 16), crop="fit", border=border, upscale=True)  # type: ignore[arg-type]
    images, _ = converted(tmp_path / "in", rules)
    assert (images[0][4:12] == wide).all()
    if border == "blur":
        assert images[0][0].min() > 110 and images[0][0].std() < 40  # of all the image, and soft
    else:
        assert (images[0][[0, 3, 12, 15]][:, [0, 15]] == expected).all()


def test_the_border_of_transparent_images_is_clear_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGBA", (16, 8), (9, 9, 9, 128)).save(tmp_path / "in/a.png")
    rules = Rules(resolution=Size(8, 8), crop="fit", alpha="keep")
    for border, expected in (
        (None, [0] * 4),
        ("black", [0, 0, 0, 255]),
        ("white", [255] * 4),
        ("edge", [9, 9, 9, 128]),
    ):
        images, _ = converted(tmp_path / "in", replace(rules, border=border))  # type: ignore[arg-type]
        assert images[0][0, 0].tolist() == expected
    with pytest.raises(UserError, match="--crop fit"):
        converted(tmp_path / "in", replace(SMALL, border="edge"))


# Images that would be lost


def png(value: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("L", (8, 8), value).save(content, "PNG")
    return content.getvalue()


def zip_with(path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for value, name in enumerate(names):
            archive.writestr(name, png(value))


def tar_with(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w") as archive:
        for value, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(png(value))
            archive.addfile(info, io.BytesIO(png(value)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("suffix", "pack"), [("zip", zip_with), ("tar", tar_with)])
def test_two_members_of_one_name_are_refused(
    tmp_path: Path, suffix: str, pack: Callable[[Path, list[str]], None]
) -> None:
    path = tmp_path / f"in.{suffix}"
    pack(path, ["a.png", "b.png", "a.png", "b.png"])
    with pytest.raises(UserError, match="2 names more than once, such as a.png"):
        open_source(path)
    if suffix == "zip":
        with pytest.raises(UserError, match="2 names more than once"):
            Archive.open(path)
    pack(path, ["a.png", "b.png", "A.png"])
    assert len(open_source(path).names) == 3


def folder(tmp_path: Path, count: int = 6) -> Path:
    (tmp_path / "in").mkdir()
    for value in range(count):
        (tmp_path / f"in/{value}.png").write_bytes(png(value))
    return tmp_path / "in"


def pulled(source: Source, after: int, pull: Callable[[], object]) -> Source:
    """A source to which something happens before the image with number `after` is read for the `after`-th time."""
    count = [0]

    def read(index: int) -> bytes | np.ndarray:
        count[0] += 1
        if count[0] == after:
            pull()
        return source.read(index)

    return replace(source, read=read)


@pytest.mark.parametrize("after", [1, 4, 7, 10])
def test_a_folder_that_vanishes_ends_the_conversion(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path)
    source = pulled(open_source(path), after, lambda: shutil.rmtree(path))
    monkeypatch.setattr(conversion, "open_source", lambda _: source)
    with pytest.raises(UserError, match="changed while it was .*: nothing was written"):
        converted(path)
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("after", [2, 9])
def test_an_archive_that_is_cut_ends_the_conversion(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(6):
            archive.writestr(f"{index}.png", png(index) + bytes(1 << 16))  # more than is read ahead
    source = pulled(open_source(path), after, lambda: os.truncate(path, 300))
    monkeypatch.setattr(conversion, "open_source", lambda _: source)
    with pytest.raises(UserError, match="changed while it was .*: nothing was written"):
        converted(path)
    assert not (tmp_path / "out.zip").exists()


def test_an_image_that_changes_after_its_inspection_ends_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path)
    source = pulled(open_source(path), 8, lambda: (path / "5.png").write_bytes(png(77)))
    monkeypatch.setattr(conversion, "open_source", lambda _: source)
    with pytest.raises(UserError, match=r"5.png in .* changed"):
        converted(path)


def test_a_folder_that_cannot_be_listed_is_refused_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path)
    (path / "private").mkdir()
    listing = os.scandir

    def scandir(where: Path) -> object:
        if Path(where).name == "private":
            raise PermissionError(13, "Permission denied")
        return listing(where)

    monkeypatch.setattr("os.scandir", scandir)
    for open_it in (open_source, Archive.open):
        with pytest.raises(UserError, match="private: Permission denied"):
            open_it(path)


def test_all_readers_of_a_folder_follow_its_links(tmp_path: Path) -> None:
    path = folder(tmp_path, 2)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/x.png").write_bytes(png())
    (path / "linked").symlink_to(tmp_path / "more")
    assert sorted(open_source(path).names) == Archive.open(path).names == ["0.png", "1.png", "linked/x.png"]


def test_what_is_no_image_is_counted_by_kind(tmp_path: Path) -> None:
    path = folder(tmp_path, 2)
    for name in ("a.txt", "b.txt", "raw.nef", "none", ".hidden.png"):
        (path / name).write_bytes(b"x")
    said = converted(path)[1]
    others = "5 other files (2 .txt, 1 .nef, 1 hidden, 1 without suffix)"
    assert sorted(open_source(path).others) == sorted(others)
    assert "5 other files (2 .txt" in text_of(said, "Source") and "rename or convert" in text_of(said, "Source")
    assert "2 images 8x8 L" in Archive.open(path).summary and "5 other files" in Archive.open(path).summary


def test_photographs_of_phones_name_the_package_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Image.OPEN, "HEIF", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    path = folder(tmp_path, 1)
    (path / "x.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(99))
    _, said = converted(path)
    assert f"1  {NEEDS_HEIF}: x.heic" in said


# The list of what was left out


def test_reasons_are_told_and_written_when_every_image_fails(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_text("words")
    said: list[str] = []
    for rules in (Rules(), SMALL):
        job = Job(tmp_path / "in", tmp_path / "out.zip", skip_list=tmp_path / "skips.txt")
        with pytest.raises(UserError, match="None of the 2"):
            run(job, rules, say=said.append)
        assert "2  not an image: a.png, b.png" in said[-1]
        assert (tmp_path / "skips.txt").read_text() == "a.png\tnot an image\nb.png\tnot an image\n"
        (tmp_path / "in/c.png").write_bytes(png()[:60])
        (tmp_path / "in/c.png").unlink()


def test_the_list_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    path = folder(tmp_path, 2)
    (path / "bad.png").write_text("words")
    for _ in range(2):
        converted(path, skip_list=tmp_path / "skips.txt")
    assert (tmp_path / "skips.txt").read_text() == "bad.png\tnot an image\n"
    (tmp_path / "t.tsv").write_text("0.png\tx\n1.png\ty\n")
    (tmp_path / "notes.txt").write_text("mine\n")
    (tmp_path / "link.txt").symlink_to(path / "0.png")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    places = [tmp_path / "out.zip", path / "0.png", tmp_path / "t.tsv", tmp_path / "notes.txt", tmp_path / "link.txt"]
    for place in places:
        with pytest.raises(UserError, match="--skip-list"):
            converted(path, skip_list=place)
    with pytest.raises(UserError, match="--skip-list"):
        converted(path, skip_list=tmp_path / "new.zip", dest=tmp_path / "new.zip")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_list_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = folder(tmp_path, 2)
    with pytest.raises(UserError, match="--skip-list"):
        converted(path, skip_list=tmp_path / ("x" * 300))


def test_workers_share_the_memory_for_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one image, no two are decoded or converted at the same time, whatever the number of workers."""
    path, lock, now, most = folder(tmp_path, 12), threading.Lock(), [0], [0]

    def alone(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            threading.Event().wait(0.002)
            try:
                return function(*arguments)
            finally:
                with lock:
                    now[0] -= 1

        return call

    for module, name in ((inspection, "decode"), (conversion, "convert_image")):
        monkeypatch.setattr(module, name, alone(getattr(module, name)))
        monkeypatch.setattr(module, "room_for_decoding", lambda: Room(1))
    assert len(converted(path, workers=4)[0]) == 12 and most[0] == 1
    for module in (inspection, conversion):
        monkeypatch.setattr(module, "room_for_decoding", lambda: Room(1 << 30))
    converted(path, workers=4)
    assert most[0] > 1
