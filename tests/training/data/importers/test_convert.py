"""From a folder to an archive, and every way in which that is refused; every image is converted or listed."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import UserError
from training.data.archive import Archive
from training.data.importers.convert import Job, run
from training.data.importers.rules import Rules
from training.data.sizes import Size

SMALL = Rules(resolution=Size(8, 8))


def convert(source: Path, rules: Rules = SMALL, /, **job: object) -> tuple[Path, dict[str, str]]:
    """The archive, and {name: reason} of what was left out."""
    dest = source.parent / "out.zip"
    job_of = Job(source, dest, overwrite=True)
    skipped = run(replace(job_of, **job), rules, say=lambda text: None)  # type: ignore[arg-type]
    return dest, {skip.name: skip.reason for skip in skipped}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve files in two folders, ten of them intact."""
    random = np.random.RandomState(0)
    for index in range(10):
        folder = tmp_path / "photos" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (12 + index, 16, 3), np.uint8)).save(folder / f"{index}.png")
    (folder / "text.jpg").write_text("words")
    (folder / "cut.png").write_bytes((folder / "9.png").read_bytes()[:200])
    return tmp_path / "photos"


def test_an_archive_comes_out_with_labels_and_a_list_of_skips(photos: Path) -> None:
    dest, skipped = convert(photos)
    archive = Archive.open(dest)
    assert (len(archive), archive.height, archive.width, archive.channels) == (10, 8, 8, 3)
    assert archive.labels is not None and archive.labels.tolist() == [0] * 5 + [1] * 5
    assert archive.class_names == ["cat", "dog"]
    assert skipped == {"dog/cut.png": "truncated", "dog/text.jpg": "not an image"}


def test_classes_whose_images_are_left_out_have_no_number(photos: Path) -> None:
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"words")
    said: list[str] = []
    dest = photos.parent / "out.zip"
    run(Job(photos, dest), SMALL, say=said.append)
    archive = Archive.open(dest)
    assert archive.labels is not None and archive.labels.tolist() == [0] * 5 and archive.class_names == ["dog"]
    assert "Classes     1: dog (5); from sub-folders; left out without images: cat; renumbered" in "\n".join(said)


def test_labels_with_gaps_are_numbered_anew_and_keep_their_names(photos: Path) -> None:
    names = sorted(f"cat/{path.name}" for path in (photos / "cat").iterdir())
    labels = [[name, 1 + index % 2] for index, name in enumerate(names)]
    (photos / "dataset.json").write_text(json.dumps({"labels": labels}))
    archive = Archive.open(convert(photos)[0])
    assert archive.labels is not None and archive.labels.tolist() == [0, 1, 0, 1, 0]
    assert archive.class_names == ["1", "2"] and archive.num_classes == 2


@pytest.mark.parametrize("kind", ["backslashes", "dots", "top folder"])
def test_a_zip_written_anywhere_gives_the_same_archive(photos: Path, kind: str) -> None:
    expected = content(convert(photos)[0])
    write = {
        "backslashes": lambda name: name.replace("/", "\\"), "dots": lambda name: f"./{name}",
        "top folder": lambda name: f"photos/{name}",
    }[kind]  # fmt: skip
    with zipfile.ZipFile(photos.parent / "packed.zip", "w") as packed:
        for path in photos.rglob("*.*"):
            packed.write(path, write(path.relative_to(photos).as_posix()))
    assert content(convert(photos.parent / "packed.zip")[0]) == expected


def content(path: Path) -> tuple[list[bytes], object, object]:
    """The images, labels and names of classes of an archive."""
    archive = Archive.open(path)
    assert archive.labels is not None
    return [archive.read(i).tobytes() for i in range(len(archive))], archive.labels.tolist(), archive.class_names


def test_the_number_of_workers_does_not_change_a_byte(photos: Path) -> None:
    contents = {convert(photos, workers=workers)[0].read_bytes() for workers in (1, 2, 7)}
    assert len(contents) == 1


def test_an_archive_converts_to_itself(photos: Path) -> None:
    first = convert(photos)[0].rename(photos.parent / "first.zip")
    second, skipped = convert(first, Rules())
    one, two = Archive.open(first), Archive.open(second)
    assert skipped == {} and (one.labels == two.labels).all() and one.class_names == two.class_names
    assert all((one.read(index) == two.read(index)).all() for index in range(10))


def test_dataset_json_is_as_other_tools_read_it(photos: Path) -> None:
    with zipfile.ZipFile(convert(photos)[0]) as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert labels[0] == ["00000/img00000000.png", 0] and len(labels) == 10
        assert {name for name, _ in labels} | {"dataset.json"} == set(archive.namelist())
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


def test_small_ones_are_skipped_or_enlarged(photos: Path) -> None:
    rules = Rules(resolution=Size(16, 16))
    _, skipped = convert(photos, rules)
    assert sum("smaller" in reason for reason in skipped.values()) == 4
    _, skipped = convert(photos, replace(rules, upscale=True))
    assert len(skipped) == 2


def test_duplicates_are_kept_or_skipped(photos: Path) -> None:
    (photos / "dog" / "again.png").write_bytes((photos / "dog" / "9.png").read_bytes())
    assert len(Archive.open(convert(photos)[0])) == 11
    _, skipped = convert(photos, replace(SMALL, duplicates="skip"))
    assert skipped["dog/again.png"].startswith("the same as") or skipped["dog/9.png"].startswith("the same as")


def test_max_images_labels_and_skip_list(photos: Path) -> None:
    table = photos.parent / "t.csv"
    table.write_text("file,kind\n0.png,x\n2.png,y\n")
    dest, skipped = convert(
        photos, replace(SMALL, max_images=3, labels=str(table)), skip_list=photos.parent / "skips.txt"
    )
    assert len(Archive.open(dest)) == 2
    assert skipped == {"cat/4.png": "no class in t.csv, column kind"}
    assert (photos.parent / "skips.txt").read_text() == "cat/4.png\tno class in t.csv, column kind\n"


@pytest.mark.parametrize(
    ("grey", "transparent", "alpha", "channels"),
    [
        (True, False, "white", 1),
        (False, False, "keep", 3),
        (False, True, "keep", 4),
        (False, True, "white", 3),
        (True, False, "keep", 1),
    ],
)
def test_auto_chooses_the_channels(tmp_path: Path, grey: bool, transparent: bool, alpha: str, channels: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.new("L", (8, 8)).save(source / "a.png")
    Image.new("L" if grey else "RGBA" if transparent else "RGB", (8, 8)).save(source / "b.png")
    assert Archive.open(convert(source, Rules(alpha=alpha))[0]).channels == channels  # type: ignore[arg-type]


def test_a_dry_run_writes_nothing(photos: Path) -> None:
    dest, skipped = convert(photos, dry_run=True)
    assert not dest.exists() and len(skipped) == 2
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]


@pytest.mark.parametrize(
    ("rules", "job", "message"),
    [
        (Rules(), {}, "different sizes: add --resolution, such as 16"),
        (Rules(resolution=Size(100, 100)), {}, "--resolution 96"),
        (Rules(resolution=Size(64, 64)), {}, "None of the 12 images"),
        (Rules(resolution=Size(8, 8), crop="none"), {}, "--crop none"),
        (Rules(resolution=Size(8, 8), channels="4"), {}, "--alpha keep"),
        (Rules(resolution=Size(8, 8), channels="1", alpha="keep"), {}, "--channels 1"),
        (replace(SMALL, max_images=0), {}, "--max-images"),
        (replace(SMALL, labels="no.csv"), {}, "there is no such file"),
        (SMALL, {"dest": Path("out.tar")}, "must end in .zip"),
        (SMALL, {"source": Path("nowhere")}, "There is no such file"),
        (SMALL, {"skip_list": Path("/nowhere/x.txt")}, "--skip-list"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    photos: Path, rules: Rules, job: dict[str, Path], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        convert(photos, rules, **job)
    assert "\n" not in str(error.value)
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_an_archive_is_only_replaced_on_request(photos: Path) -> None:
    dest, _ = convert(photos)
    before = dest.read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        convert(photos, overwrite=False)
    with pytest.raises(UserError, match="same file"):
        convert(dest, Rules())
    assert dest.read_bytes() == before


def test_places_that_cannot_be_written(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos.parent / "file").write_text("")
    (photos.parent / "folder.zip").mkdir()
    with pytest.raises(UserError, match="Cannot write into"):
        convert(photos, dest=photos.parent / "file" / "out.zip")
    with pytest.raises(UserError, match="is a folder"):
        convert(photos, dest=photos.parent / "folder.zip")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="Cannot write into"):
        convert(photos)


def test_no_room_on_the_disk(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="MB free"):
        convert(photos)
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_a_disk_that_fills_up_leaves_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.data.archive.ArchiveWriter.add_png", full)
    with pytest.raises(UserError, match="the disk is full; make room"):
        convert(photos, workers=3)
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    try:
        (folder / os.fsdecode(b"\xff.png")).write_bytes(b"not an image")
    except OSError:
        pytest.skip("this file system only has names of text")
    _, skipped = convert(folder)
    assert list(skipped) == ["\\udcff.png"]


KINDS = {
    "1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "JPEG", "RGBA": "WEBP", "CMYK": "JPEG", "I;16": "PNG",
    "I": "TIFF", "F": "TIFF", "YCbCr": "JPEG", "LAB": "TIFF",
}  # fmt: skip
images = st.tuples(
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["", "cut", "text", "turned"]),
)


@settings(max_examples=100, deadline=None)
@given(
    specs=st.lists(images, min_size=1, max_size=8),
    size=st.sampled_from([Size(8, 8), Size(8, 12), Size(24, 16)]),
    crop=st.sampled_from(["center", "fit", "none"]),
    alpha=st.sampled_from(["white", "drop", "keep"]),
    upscale=st.booleans(),
)
def test_every_image_conforms_or_is_listed(specs, size: Size, crop, alpha, upscale: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "in"
        source.mkdir()
        for index, spec in enumerate(specs):
            (source / f"{index}.png").write_bytes(make_image(*spec))
        rules = Rules(resolution=size, crop=crop, alpha=alpha, upscale=upscale)
        must = {
            f"{index}.png"
            for index, (mode, width, height, damage) in enumerate(specs)
            if mode != "F" and damage == "" and ((upscale and crop != "none") or Size(height, width) == size)
        }
        try:
            dest = Path(scratch) / "out.zip"
            job = Job(source, dest)
            skipped = {skip.name: skip.reason for skip in run(job, rules, say=lambda text: None)}
        except UserError as error:
            assert str(error).startswith("None of the") and not must
            assert [path.name for path in Path(scratch).iterdir()] == ["in"]
            return
        assert not must & set(skipped)
        archive = Archive.open(dest)
        assert len(archive) + len(skipped) == len(specs)
        assert all(skipped.values())
        for index in range(len(archive)):
            assert archive.read(index).shape == (size.height, size.width, archive.channels)


def make_image(mode: str, width: int, height: int, damage: str) -> bytes:
    """An encoded image of the mode, intact, damaged or turned by EXIF."""
    if damage == "text":
        return b"words"
    ramp = np.linspace(0, 255, width * height).reshape(height, width)
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray((ramp * 200).astype(dtype))
    elif mode == "LAB":
        image = Image.merge("LAB", [Image.fromarray(ramp.astype(np.uint8))] * 3)
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    kind = KINDS[mode]
    if kind == "TIFF" or damage != "turned":
        image.save(buffer, kind)
    else:
        image.save(buffer, kind, exif=exif)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2] if damage == "cut" else buffer.getvalue()


def test_a_skip_list_that_cannot_be_written_costs_nothing_else(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skips = photos.parent / "skips.txt"
    skips.write_text("a.jpg\tof an earlier run\n")

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="skips.txt, but nothing else is lost: the disk is full; make room"):
        convert(photos, skip_list=skips)
    assert sorted(path.name for path in photos.parent.iterdir()) == ["out.zip", "photos", "skips.txt"]
    assert skips.read_text() == "a.jpg\tof an earlier run\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_skip_list_may_be_a_pipe(photos: Path) -> None:
    pipe = photos.parent / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        text = reader.submit(pipe.read_text)
        _, skipped = convert(photos, skip_list=pipe)
        assert len(text.result().splitlines()) == len(skipped) > 0 and pipe.is_fifo()
