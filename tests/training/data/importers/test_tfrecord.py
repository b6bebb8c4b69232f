"""TFRecords as other tools write them, and every kind of damage to them."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import UserError
from training.data.archive import Archive
from training.data.importers import archives
from training.data.importers.convert import Job, run
from training.data.importers.inspect import open_source
from training.data.importers.rules import Rules
from training.data.importers.tfrecord import crc32c, image_of, masked, parse_example

PIXELS = np.random.RandomState(0).randint(0, 256, (5, 16, 16, 3), np.uint8)

RULES = Rules()


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(**features: bytes | list[int]) -> bytes:
    """A tf.train.Example, written by hand."""
    entries = b""
    for name, value in features.items():
        packed = field(1, value) if isinstance(value, bytes) else field(1, b"".join(map(varint, value)))
        feature = field(1 if isinstance(value, bytes) else 3, packed)
        entries += field(1, field(1, name.replace("__", "/").encode()) + field(2, feature))
    return field(1, entries)


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return b"".join(part + struct.pack("<I", masked(crc32c(part))) for part in (length, content))


def raw(pixels: np.ndarray) -> bytes:
    """As the tools of ProGAN and StyleGAN write images: channels first."""
    planes = pixels.transpose(2, 0, 1)
    return example(shape=list(planes.shape), data=planes.tobytes())


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write(path: Path, *contents: bytes) -> Path:
    path.write_bytes(b"".join(map(record, contents)))
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for level in (2, 3, 4):
        write(
            folder / f"faces-r{level:02d}.tfrecords",
            *(raw(image[:: 2 ** (4 - level), :: 2 ** (4 - level)]) for image in PIXELS),
        )
    with (folder / "faces-rxx.labels").open("wb") as file:
        np.save(file, np.eye(3, dtype=np.float32)[[2, 0, 0, 2, 0]])
    return folder


def converted(source: Path, rules: Rules = RULES) -> tuple[Archive, list[str]]:
    dest = source.parent / "out.zip"
    skipped = run(Job(source, dest, overwrite=True), rules, say=lambda text: None)
    return Archive.open(dest), [skip.reason for skip in skipped]


def test_of_several_resolutions_the_largest_is_taken_with_its_labels(faces: Path) -> None:
    for source in (faces, faces / "faces-r04.tfrecords"):
        archive, skipped = converted(source)
        assert not skipped and archive.labels is not None
        assert np.array_equal([archive.read(i) for i in range(5)], PIXELS)
        assert archive.labels.tolist() == [1, 0, 0, 1, 0] and archive.class_names == ["0", "2"]  # 1 has no image
    assert np.asarray(open_source(faces / "faces-r02.tfrecords").read(0)).shape == (4, 4, 3)
    write(faces / "others-r04.tfrecords", raw(PIXELS[0]))
    with pytest.raises(UserError, match="several sets of TFRecords"):
        open_source(faces)


@pytest.mark.parametrize("name", ["flat.tfrecords", "train-00000-of-00002.tfrecord", "x.tfrecord-00000-of-00001"])
def test_flat_ones_with_encoded_images_and_labels(tmp_path: Path, name: str) -> None:
    contents = [
        example(image__encoded=png(image), image__class__label=[number % 2]) for number, image in enumerate(PIXELS)
    ]
    archive, skipped = converted(write(tmp_path / name, *contents))
    assert not skipped and archive.labels is not None and archive.labels.tolist() == [0, 1, 0, 1, 0]
    assert np.array_equal(archive.read(4), PIXELS[4])


@pytest.mark.parametrize("name", ["flat.tfrecords", "flat.tfrecord.gz", "flat.tfrec"])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda content: zlib.compress(content, 0)])
def test_compressed_ones_are_unpacked_whatever_their_names(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "BLOCK", 1000)  # in several pieces
    path = write(tmp_path / name, *map(raw, PIXELS))
    content = path.read_bytes()
    path.write_bytes(pack(content))
    assert np.array_equal([open_source(path).read(i) for i in range(5)], PIXELS)
    for length in (len(pack(content)) - 9, 20, 3):
        path.write_bytes(pack(content)[:length])
        with pytest.raises(UserError, match="Cannot read .*flat.tfrec"):
            open_source(path)


def test_files_that_unpack_to_too_much_are_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        packed = gzip.compress(write(tmp_path / "x", raw(PIXELS[0])).read_bytes())
        (tmp_path / f"t-{number}-of-3.tfrecord").write_bytes(packed)
    (tmp_path / "x").unlink()
    size = len(record(raw(PIXELS[0])))
    for most, fits in ((3 * size, True), (3 * size - 1, False)):
        monkeypatch.setattr(archives, "excess", lambda what, size, name, most=most: "" if size <= most else "too much")
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match="too much"):
            assert len(open_source(tmp_path).names) == 3


def test_a_length_that_looks_like_a_compressed_stream_is_none(tmp_path: Path) -> None:
    contents = [b"x" * 0x9C78, raw(PIXELS[1])]
    source = open_source(write(tmp_path / "a.tfrecords", *contents))
    assert np.array_equal(source.read(1), PIXELS[1])


def test_raw_pixels_with_height_and_width(tmp_path: Path) -> None:
    grey = PIXELS[:, :, :, 0]
    found = image_of(parse_example(example(height=[16], width=[16], depth=[1], image_raw=grey[1].tobytes())))
    assert np.array_equal(found, grey[1])
    assert image_of(parse_example(example(image=b"GIF89a"))) == b"GIF89a"
    for wrong in (example(x=[1]), example(shape=[3, 16, 17], data=b"123"), b"\xff" * 30, b"\x0a\x05"):
        with pytest.raises(ValueError):
            image_of(parse_example(wrong))


def test_damaged_records_are_left_out_and_counted(faces: Path) -> None:
    file = faces / "faces-r04.tfrecords"
    content = bytearray(file.read_bytes())
    size = len(content) // 5
    content[size + 500] ^= 1  # in the image of the second record
    file.write_bytes(content)
    archive, skipped = converted(faces)
    assert len(archive) == 4 and skipped == ["cannot be read (its checksum is wrong)"]
    content[3 * size + 1] ^= 1  # in the length of the fourth: no further record can be found
    file.write_bytes(content)
    (faces / "faces-rxx.labels").unlink()
    archive, skipped = converted(faces)
    assert len(archive) == 2 and skipped[1] == "cannot be read (the file is damaged from here on)"
    file.write_bytes(content[: 3 * size - 9])
    archive, skipped = converted(faces)
    assert len(archive) == 1 and skipped[1] == "cannot be read (the file is truncated)"


def test_labels_for_other_images_or_measurements_are_refused(faces: Path) -> None:
    labels = faces / "faces-rxx.labels"
    for wrong, message in ((np.zeros(4), "for 5 images"), (np.full((5, 3), 0.3), "add --labels none")):
        with labels.open("wb") as file:
            np.save(file, wrong)
        with pytest.raises(UserError, match=message):
            converted(faces)
    assert converted(faces, Rules(labels="none"))[0].labels is None
    labels.write_bytes(b"\x93NUMPY\x01\x00" + b"x" * 200)
    with pytest.raises(UserError, match="as TFRecords"):
        converted(faces)


def test_the_checksum_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720 has these
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43
    content = PIXELS.tobytes() * 3
    bit_by_bit = 0xFFFFFFFF
    for byte in content[:5000]:
        bit_by_bit ^= byte
        for _ in range(8):
            bit_by_bit = bit_by_bit >> 1 ^ (0x82F63B78 if bit_by_bit & 1 else 0)
    assert crc32c(content[:5000]) == bit_by_bit ^ 0xFFFFFFFF


def test_other_writers_write_the_same(tmp_path: Path) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with (tmp_path / "x.tfrecords").open("wb") as file:
        records = writer.RecordWriter(file)
        for image in PIXELS:
            records.write(raw(image))
        records.flush()
    assert (tmp_path / "x.tfrecords").read_bytes() == b"".join(record(raw(image)) for image in PIXELS)


@given(content=st.binary(max_size=300))
def test_any_content_is_an_image_or_a_value_error(content: bytes) -> None:
    for damaged in (content, raw(PIXELS[0])[: len(content)] + content):
        with contextlib.suppress(ValueError):
            image_of(parse_example(damaged))
