"""Laws of reading and writing archives."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_utils.errors import UserError
from training.data.archive import EMBEDDED, Archive, ArchiveWriter, encode_png


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


def test_hash_follows_the_content(tmp_path):
    first = Archive.open(write(tmp_path / "a.zip", some_images(3, 4, 4, 3))).content_hash
    assert Archive.open(write(tmp_path / "a.zip", some_images(3, 4, 4, 3) // 2)).content_hash != first

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.png").write_bytes(encode_png(some_images(1, 4, 4, 3)[0]))
    before = Archive.open(folder).content_hash
    assert Archive.open(folder).content_hash == before
    os.utime(folder / "x.png", ns=(1, 1))
    assert Archive.open(folder).content_hash != before


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


def test_labels_with_backslashes(tmp_path):
    png = encode_png(some_images(1, 4, 4, 3)[0])
    labels = json.dumps({"labels": [["d\\x.png", 7]], "class_names": [str(i) for i in range(10)]}).encode()
    archive = Archive.open(zip_of(tmp_path / "a.zip", {"d/x.png": png, "dataset.json": labels}))
    assert archive.labels.tolist() == [7]
    assert archive.num_classes == 10


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"labels": [["x.png", 0]]}', "1 of 2 images .* have no label, such as y.png"),
        ('{"labels": [["x.png", 0], ["y.png", 0.5]]}', "Label 0.5 .* is not a class number"),
        ('{"labels": [["x.png", 0], ["y.png", null]]}', "Label None .* is not a class number"),
        ('{"labels": [["x.png", 0], ["y.png", -1]]}', "Label -1 .* is not a class number"),
        ('{"labels": {"x.png": 0}}', "must be a list of"),
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
    with pytest.raises(UserError, match="Cannot open .* as a zip .*dataset_tool.py --source"):
        Archive.open(tmp_path / "photo.png")


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
