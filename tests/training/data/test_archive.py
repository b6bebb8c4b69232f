"""Laws of reading and writing archives."""

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_utils.errors import UserError
from torch_utils.text import plain_path
from training.data.archive import EMBEDDED, Archive, ArchiveWriter, encode_png
from training.data.importers.inspect import open_source


def some_images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, height, width, channels), dtype=np.uint8)


def write(path: Path, images: np.ndarray, labels: list[int] | None = None) -> Path:
    with ArchiveWriter(path, {"source": "test"}) as writer:
        for i, image in enumerate(images):
            writer.add(image, None if labels is None else labels[i])
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_written_is_read(tmp_path, channels):
    images = some_images(5, 8, 12, channels)
    archive = Archive.open(write(tmp_path / "a.zip", images, [0, 2, 1, 2, 0]))
    assert (len(archive), archive.height, archive.width, archive.channels) == (5, 8, 12, channels)
    assert np.array_equal(np.stack([archive.read(i) for i in range(5)]), images)
    assert archive.labels.tolist() == [0, 2, 1, 2, 0]
    assert archive.labels.dtype == np.int64
    assert (archive.num_classes, archive.meta, archive.name) == (3, {"source": "test"}, "a")


def test_layout_is_the_one_other_tools_know(tmp_path):
    path = write(tmp_path / "a.zip", some_images(1001, 4, 4, 1), [1] * 1001)
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        labels = json.loads(archive.read("dataset.json"))["labels"]
    assert (names[0], names[1000], names[-1]) == ("00000/img00000000.png", "00001/img00001000.png", "dataset.json")
    assert labels[1000] == ["00001/img00001000.png", 1]


def test_writing_twice_gives_the_same_bytes_and_hash(tmp_path):
    a, b = (write(tmp_path / name, some_images(3, 4, 4, 3)) for name in ("a.zip", "b.zip"))
    assert a.read_bytes() == b.read_bytes()
    assert Archive.open(a).content_hash == Archive.open(b).content_hash
    assert Archive.open(a).labels is None


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, cache):
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    for number, image in enumerate(some_images(3, 4, 4, 3)):
        (folder / "a" / f"{number}.png").write_bytes(encode_png(image))
    (folder / "dataset.json").write_text(json.dumps([[f"a/{number}.png", number] for number in range(3)]))
    return folder


def hash_of(path):
    return Archive.open(path).content_hash


def test_contents_and_names_decide_and_times_do_not(tmp_path, folder):
    before = hash_of(folder)
    os.utime(folder / "a/0.png", (10**9, 10**9))
    (folder / "notes.txt").write_text("no image")
    assert hash_of(folder) == before
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert hash_of(tmp_path / "copy") == before
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in [folder / "a", *folder.rglob("*.*")]:  # with an entry for the folder
            packed.write(path, path.relative_to(folder))
    assert hash_of(tmp_path / "packed.zip") == before
    (folder / "a/0.png").rename(folder / "a/9.png")
    assert Archive.open(tmp_path / "copy").is_what(before)
    (folder / "dataset.json").unlink()
    assert hash_of(folder) != before


@pytest.mark.parametrize("changed", ["a/1.png", "dataset.json"])
def test_other_contents_are_noticed_whatever_the_times_say(folder, changed):
    before, path = hash_of(folder), folder / changed
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b", 0]", b",\n0]") if changed.endswith("json") else content[:-1] + b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hash_of(folder) != before


def test_a_folder_that_looks_the_same_is_not_read_again(folder, cache, monkeypatch):
    before = hash_of(folder)
    with monkeypatch.context() as patch:
        patch.setattr("training.data.identity.ThreadPoolExecutor", lambda workers: 1 / 0)
        assert hash_of(folder) == before
    for path in cache.rglob("*.json"):
        path.write_text("damaged")
    assert hash_of(folder) == before
    shutil.rmtree(cache)
    cache.write_text("not a folder")
    assert hash_of(folder) == before


def test_a_run_of_an_earlier_version_knows_its_data_by_their_times(folder, tmp_path):
    def earlier(lines):
        return hashlib.sha256("\n".join(map(repr, sorted(lines))).encode()).hexdigest()

    files = list(folder.rglob("*.*"))
    lines = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    assert Archive.open(folder).is_what(earlier(lines)) and not Archive.open(folder).is_what("other")
    path = write(tmp_path / "a.zip", some_images(3, 4, 4, 3))
    with zipfile.ZipFile(path) as packed:
        members = [(m.filename, m.CRC, m.file_size) for m in packed.infolist()]
    assert hash_of(path) == earlier(members)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("notes.txt", "no image")
        members = [(m.filename, m.CRC, m.file_size) for m in packed.infolist()]
    assert hash_of(path) != earlier(members) and Archive.open(path).is_what(earlier(members))


def test_hash_follows_the_content(tmp_path):
    first = hash_of(write(tmp_path / "a.zip", some_images(3, 4, 4, 3)))
    assert hash_of(write(tmp_path / "a.zip", some_images(3, 4, 4, 3) // 2)) != first


def test_a_folder_is_read_recursively_and_sorted(tmp_path):
    images = some_images(3, 4, 4, 3)
    for name, image in zip(["b/2.png", "a/1.PNG", "c.png"], images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode_png(image))
    for name in ["notes.txt", ".hidden.png", "a/._1.png"]:
        (tmp_path / name).write_bytes(b"not an image")
    archive = Archive.open(tmp_path)
    assert archive.names == ["a/1.PNG", "b/2.png", "c.png"]
    assert np.array_equal(archive.read(0), images[1])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "PPM", "TIFF", "TGA"])
def test_other_formats_of_images(tmp_path, kind):
    image = np.full((8, 6, 3), 100, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    archive = Archive.open(zip_of(tmp_path / "a.zip", {f"x.{kind.lower()}": buffer.getvalue(), "__MACOSX/x.png": b""}))
    assert len(archive) == 1
    assert np.abs(archive.read(0).astype(int) - 100).max() <= 2


def test_every_suffix_of_images_counts(tmp_path):
    for name in ("a.tif", "b.TIFF", "c.jpe", "d.pnm"):
        (tmp_path / name).write_bytes(encode_png(some_images(1, 4, 4, 3)[0]))
    assert Archive.open(tmp_path).names == ["a.tif", "b.TIFF", "c.jpe", "d.pnm"]


def test_more_names_than_classes_with_images(tmp_path):
    png = encode_png(some_images(1, 4, 4, 3)[0])
    labels = json.dumps({"labels": [["d\\x.png", 7]], "class_names": [str(i) for i in range(10)]}).encode()
    archive = Archive.open(zip_of(tmp_path / "a.zip", {"d/x.png": png, "dataset.json": labels}))
    assert archive.labels.tolist() == [7]
    assert archive.num_classes == 10


@pytest.mark.parametrize(
    ("images", "manifest", "paths"),
    [
        (("a\\x.png", "a\\y.png"), "dataset.json", ("a/x.png", "a/y.png")),
        (("./a/x.png", "./a/y.png"), "./dataset.json", ("a/x.png", "a\\y.png")),
        (("top/a/x.png", "top/a/y.png"), "top/dataset.json", ("a/x.png", "./a/y.png")),
        (("top\\a\\x.png", "top\\a\\y.png"), "top\\dataset.json", ("top/a/x.png", "top/a/y.png")),
        (("a/x\u0301.png", "a/y.png"), "dataset.json", ("a/x\u0301.png", "a/y.png")),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_labels_are_found_however_paths_are_written(tmp_path, images, manifest, paths, bare):
    png = encode_png(some_images(1, 4, 4, 3)[0])
    pairs = [[paths[0], 1], [paths[1], 0]]
    content = json.dumps(pairs if bare else {"labels": pairs}).encode()
    archive = Archive.open(zip_of(tmp_path / "a.zip", {images[0]: png, images[1]: png, manifest: content}))
    assert archive.labels.tolist() == [1, 0]
    assert archive.names == [plain_path(name) for name in images]


def test_images_are_in_the_order_of_their_names_as_written(tmp_path):
    png = encode_png(some_images(1, 4, 4, 3)[0])
    archive = Archive.open(zip_of(tmp_path / "a.zip", {"ab/1.png": png, "a\\2.png": png, "__MACOSX\\a\\3.png": b"x"}))
    assert archive.names == ["a/2.png", "ab/1.png"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"labels": [["x.png", 0]]}', "1 of 2 images .* have no label, such as y.png"),
        ('{"labels": [["x.png", 0], ["y.png", 0.5]]}', "label 0.5 is not a class number"),
        ('{"labels": [["x.png", 0], ["y.png", -1]]}', "label -1 is not a class number"),
        ('{"labels": {"x.png": 0}}', "1 of 2 images .* have no label, such as y.png"),
        ('{"labels": [["x.png", 0], ["x.png", 1], ["y.png", 0]]}', "two labels for x.png"),
        ('{"labels": [["x.png", 0], ["y.png", null]]}', "1 of 2 images .* have no label, such as y.png"),
        ('{"labels": [["x.png", [0.2, 0.8]], ["y.png", [1, 0]]]}', "a list of measurements, not a class"),
        ('{"labels": [["x.png", "cat"], ["y.png", 1]]}', "some of its labels are words and some are numbers"),
        ('{"labels": 3}', "must be a list of"),
        ('{"labels": [', "Cannot read dataset.json"),
    ],
)
def test_bad_labels_are_refused(tmp_path, labels, message):
    png = encode_png(some_images(1, 4, 4, 3)[0])
    path = zip_of(tmp_path / "a.zip", {"x.png": png, "y.png": png, "dataset.json": labels.encode()})
    with pytest.raises(UserError, match=message):
        Archive.open(path)


def test_bad_paths_are_refused(tmp_path):
    with pytest.raises(UserError, match="There is no archive or folder at .*: give a path, or one of: mnist"):
        Archive.open(tmp_path / "absent")
    with pytest.raises(UserError, match="There are no images in"):
        Archive.open(tmp_path)
    with pytest.raises(UserError, match="There are no images in"):
        Archive.open(zip_of(tmp_path / "a.zip", {"readme.txt": b"hello"}))
    (tmp_path / "photo.png").write_bytes(encode_png(some_images(1, 4, 4, 3)[0]))
    with pytest.raises(UserError, match="Cannot open .* as a zip .*give the folder that contains it"):
        Archive.open(tmp_path / "photo.png")


def test_what_cannot_be_read_is_not_called_empty(tmp_path, monkeypatch):
    """A folder, one below it whose images would be missing, and a zip file."""
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "folder" / "photo.png").write_bytes(encode_png(some_images(1, 4, 4, 3)[0]))
    (tmp_path / "a.zip").touch()

    def refusing(call, *names):
        def refuse(path, *arguments, **named):
            if Path(path).name in names:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *arguments, **named)

        return refuse

    monkeypatch.setattr(os, "scandir", refusing(os.scandir, "folder", "below"))
    monkeypatch.setattr("builtins.open", refusing(open, "a.zip"))
    monkeypatch.setattr(io, "open", refusing(io.open, "a.zip"))
    for path, culprit in (("folder", "folder"), (".", "folder"), ("folder/below", "below"), ("a.zip", "a.zip")):
        with pytest.raises(UserError, match=rf"^Cannot (read|list) .*{culprit}\W+Permission denied.*make it readable"):
            Archive.open(tmp_path / path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.tfrecords", "dataset_tool.py --source"), ("x.npz", "dataset_tool.py --source"),
        ("x.tar.gz", "dataset_tool.py --source"), ("x.h5", "dataset_tool.py --source"), ("x.rar", "unpack it"),
        ("x.mp4", "ffmpeg"), ("x.parquet", "numpy.savez"), ("x.nef", "export them as PNG"),
        ("x.docx", "give a zip or a folder of images"),
    ],
)  # fmt: skip
def test_advice_is_what_can_help(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"x")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(UserError) as error:
            Archive.open(path)
        assert (advice in str(error.value)) is (name != "x.docx" or path != tmp_path)
        assert ("dataset_tool" in str(error.value)) is advice.startswith("dataset_tool")
    if not advice.startswith("dataset_tool"):  # nor does that tool send anyone in a circle
        for path in (tmp_path / name, tmp_path):
            with pytest.raises(UserError) as error:
                open_source(path)
            assert "dataset_tool" not in str(error.value)
            assert name == "x.docx" or advice in str(error.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (encode_png(np.zeros((8, 4, 3), np.uint8)), r"y.png .* channels \(8, 4, 3\).*--resolution 4`"),
        (encode_png(np.zeros((4, 4, 1), np.uint8)), r"y.png .* channels \(4, 4, 1\)"),
        (encode_png(some_images(1, 4, 4, 3)[0])[:-30], "Cannot read y.png"),
        (b"not an image", "Cannot read y.png"),
        (b"", "Cannot read y.png"),
    ],
)
def test_an_image_unlike_the_others_is_named_with_the_cure(tmp_path, second, message):
    path = zip_of(tmp_path / "a.zip", {"x.png": encode_png(some_images(1, 4, 4, 3)[0]), "y.png": second})
    archive = Archive.open(path)
    with pytest.raises(UserError, match=message) as error:
        archive.read(1)
    assert f"dataset_tool.py --source {path} --dest a-" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mode_that_archives_do_not_have_is_named(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P").save(tmp_path / "x.png")
    with pytest.raises(UserError, match="x.png .* has mode P, not L, RGB or RGBA"):
        Archive.open(tmp_path)


def test_a_failed_writer_leaves_nothing(tmp_path):
    old = write(tmp_path / "a.zip", some_images(1, 4, 4, 1)).read_bytes()
    with pytest.raises(RuntimeError, match="stop"), ArchiveWriter(tmp_path / "a.zip") as writer:
        writer.add(some_images(1, 4, 4, 3)[0])
        raise RuntimeError("stop")
    with pytest.raises(UserError, match="nothing was written"), ArchiveWriter(tmp_path / "a.zip"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == old


def test_a_writer_keeps_images_equal_and_labels_complete(tmp_path):
    with ArchiveWriter(tmp_path / "a.zip") as writer:
        writer.add(some_images(1, 4, 4, 3)[0])
        for unlike in [some_images(1, 4, 4, 1)[0], some_images(1, 8, 4, 3)[0]]:
            with pytest.raises(ValueError, match="the archive holds"):
                writer.add(unlike)
    assert len(Archive.open(tmp_path / "a.zip")) == 1
    with pytest.raises(ValueError, match="1 of 2 images have no label"):
        write(tmp_path / "b.zip", some_images(2, 4, 4, 3), [1, None])  # type: ignore[list-item]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="Cannot write .*choose another --dest"),
        ArchiveWriter(tmp_path / "file" / "a.zip"),
    ):
        pass


def test_the_embedded_digits():
    archive = Archive.open("mnist")
    assert (len(archive), archive.height, archive.width, archive.channels) == (10_000, 32, 32, 1)
    assert EMBEDDED["mnist"].stat().st_size < 3_000_000
    assert archive.class_names == list("0123456789")
    # The published test set: its first digits, and how many there are of each.
    assert archive.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(archive.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    image = archive.read(0)[:, :, 0]
    assert image.max() > 250
    assert not image[[0, 1, 30, 31]].any()
    assert not image[:, [0, 1, 30, 31]].any()


@pytest.mark.parametrize("names", [("a.png", "./a.png"), ("s/a.png", "s\\a.png"), ("a.png", "x/../a.png")])
def test_two_names_of_one_place_would_lose_an_image(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for index, name in enumerate(names):
            archive.writestr(name, encode_png(some_images(2, 4, 4, 3)[index]))
    with pytest.raises(UserError, match="1 name more than once, such as .*a.png"):
        Archive.open(tmp_path / "two.zip")
