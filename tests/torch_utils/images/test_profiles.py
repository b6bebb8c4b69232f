"""Files that say by no profile what their colours are: sRGB comes out, or a note why it does not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from torch_utils.images import BadImage, frames_of, open_image, read_image
from torch_utils.images.colour import ROUGH, profile_note
from torch_utils.images.profiles import HDR, UNCALIBRATED, UNKNOWN, VIDEO

WIDE = (Path(__file__).parents[2] / "data/profiles/wide.icc").read_bytes()
COLOUR, ADOBE_RED = (200, 80, 60), (230, 79, 56)
RED, GREY = Image.new("RGB", (8, 8), COLOUR), Image.new("L", (8, 8), 55)
# From linear colours of other primaries to those of sRGB, as CSS Color 4 gives them.
FROM_P3 = np.array([[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09827]])
FROM_2020 = np.array([[1.66023, -0.58755, -0.07284], [-0.12455, 1.13293, -0.00835], [-0.01816, -0.10060, 1.11873]])
ADOBE_CHRM = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
SRGB_CHRM = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def gama(value: float) -> bytes:
    return struct.pack(">I", round(value * 100000))


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png(image: Image.Image, chunks: dict[str, bytes], **options: object) -> bytes:
    """A PNG file with more chunks before all others."""
    content = file(image, "PNG", **options)
    more = b""
    for name, data in chunks.items():
        body = name.encode() + data
        more += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + more + content[33:]


def middle(content: bytes) -> object:
    return np.asarray(read_image(content))[4, 4].tolist()


def through(matrix: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """A colour whose curve is that of sRGB, in sRGB."""
    v = np.array(colour) / 255
    light = (matrix @ np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)).clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("colour", [COLOUR, (128, 128, 128), (90, 100, 110)])
@pytest.mark.parametrize(("codes", "name", "matrix"), [
    ((12, 13, 0, 1), "Display P3", FROM_P3), ((9, 13, 0, 1), "BT.2020", FROM_2020),
    ((9, 1, 0, 1), "BT.2020", FROM_2020),
])  # fmt: skip
def test_code_points_mean_their_primaries(
    codes: tuple[int, ...], name: str, matrix: np.ndarray, colour: tuple[int, ...]
) -> None:
    content = png(Image.new("RGB", (8, 8), colour), {"cICP": bytes(codes)})
    np.testing.assert_allclose(middle(content), through(matrix, colour), atol=2)
    assert profile_note(open_image(content)) == f"converted to sRGB from {name}"


def test_gamma_and_primaries_mean_what_a_profile_would() -> None:
    assert middle(png(RED, {"gAMA": gama(1 / 2.2), "cHRM": ADOBE_CHRM})) == list(ADOBE_RED)
    assert middle(png(RED, {"gAMA": gama(1)})) == [229, 152, 133]
    assert middle(png(GREY, {"gAMA": gama(1), "cHRM": ADOBE_CHRM})) == 128
    assert middle(png(GREY, {"cICP": bytes([1, 8, 0, 1])})) == 128
    deep = Image.fromarray(np.full((8, 8), 55 << 8, np.uint16))
    deep.putpixel((0, 0), 65535)
    assert middle(png(deep, {"gAMA": gama(1)})) == 128


def test_the_first_of_cicp_profile_srgb_and_gamma_decides() -> None:
    weaker = {"gAMA": gama(1), "cHRM": ADOBE_CHRM}
    p3 = {"cICP": bytes([12, 13, 0, 1])}
    assert middle(png(RED, {**p3, **weaker}, icc_profile=WIDE)) == middle(png(RED, p3))
    assert middle(png(RED, {"cICP": bytes([1, 13, 0, 1])}, icc_profile=WIDE)) == list(COLOUR)
    assert middle(png(RED, weaker, icc_profile=WIDE)) == list(ADOBE_RED)
    assert middle(png(RED, {"sRGB": b"\0", **weaker})) == list(COLOUR)


@pytest.mark.parametrize("chunks", [
    {"gAMA": gama(0.45455)}, {"gAMA": gama(0.45455), "cHRM": SRGB_CHRM}, {"cHRM": SRGB_CHRM}, {"sRGB": b"\1"},
    {"cICP": bytes([1, 13, 0, 1])}, {"cICP": bytes([1, 1, 0, 1])}, {"cICP": bytes([2, 2, 0, 1])},
])  # fmt: skip
def test_the_usual_ways_to_say_srgb_keep_every_bit(chunks: dict[str, bytes]) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (9, 9, 3), np.uint8)
    content = png(Image.fromarray(pixels), chunks)
    np.testing.assert_array_equal(np.asarray(read_image(content)), pixels)
    assert profile_note(open_image(content)) == ""


@pytest.mark.parametrize(("chunks", "note"), [
    ({"cICP": bytes([9, 16, 0, 1])}, HDR), ({"cICP": bytes([9, 18, 0, 1])}, HDR),
    ({"cICP": bytes([12, 13, 0, 0])}, VIDEO), ({"cICP": bytes([99, 13, 0, 1])}, UNKNOWN),
    ({"cICP": bytes([9, 13, 9, 1])}, UNKNOWN), ({"gAMA": gama(0)}, UNKNOWN), ({"cHRM": bytes(32)}, UNKNOWN),
    ({"cHRM": b"\xff" * 32}, UNKNOWN), ({"cICP": b"\1"}, ""),
])  # fmt: skip
def test_what_has_no_certain_meaning_is_taken_as_it_is_and_noted(chunks: dict[str, bytes], note: str) -> None:
    content = png(RED, chunks)
    assert middle(content) == list(COLOUR) and profile_note(open_image(content)) == note


def exif(space: int, index: str = "") -> bytes:
    made = Image.Exif()
    ifd = made.get_ifd(0x8769)
    ifd[0xA001] = space
    if index:
        ifd[0xA005] = {1: index}
    return made.tobytes()


@pytest.mark.parametrize(("kind", "options"), [
    ("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True}), ("PNG", {}),
])  # fmt: skip
def test_cameras_say_adobe_rgb_in_exif_only(kind: str, options: dict[str, object]) -> None:
    for said in (exif(0xFFFF, "R03"), exif(2)):
        content = file(RED, kind, exif=said, **options)
        np.testing.assert_allclose(middle(content), ADOBE_RED, atol=2 if kind == "JPEG" else 1)
        assert profile_note(open_image(content)) == "converted to sRGB from Adobe RGB (EXIF)"
    for said, note in ((exif(1, "R98"), ""), (exif(0xFFFF), UNCALIBRATED), (b"Exif\0\0MM\0*\xff\xff\xff\xff", "")):
        content = file(RED, kind, exif=said, **options)
        np.testing.assert_allclose(middle(content), COLOUR, atol=2 if kind == "JPEG" else 0)
        assert profile_note(open_image(content)) == note


def test_a_profile_decides_before_exif() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profile_note(open_image(file(RED, "JPEG", exif=exif(0xFFFF, "R03"), icc_profile=srgb))) == ""


def test_boxes_of_avif_and_jpeg_2000_and_headers_of_bmp() -> None:
    content = file(RED, "AVIF", quality=100)
    at = content.index(b"colrnclx") + 8
    np.testing.assert_allclose(middle(content), COLOUR, atol=2)
    wide = content[:at] + struct.pack(">HH", 12, 13) + content[at + 4 :]
    np.testing.assert_allclose(middle(wide), through(FROM_P3, COLOUR), atol=3)

    content = file(RED, "JPEG2000")
    at = content.index(b"colr") - 4
    (size,) = struct.unpack_from(">I", content, at)
    head, (whole,) = content.index(b"jp2h") - 4, struct.unpack_from(">I", content, content.index(b"jp2h") - 4)
    box = struct.pack(">I4sBBB", 11 + len(WIDE), b"colr", 2, 0, 0) + WIDE
    wide = content[:at] + box + content[at + size :]
    wide = wide[:head] + struct.pack(">I", whole + len(box) - size) + wide[head + 4 :]
    assert middle(wide) == list(ADOBE_RED)

    pixels = b"\x3c\x50\xc8" * 64
    header = struct.pack("<IiiHHIIiiII", 124, 8, 8, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(pixels), len(WIDE), 0)
    wide = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(WIDE), 0, 0, 138) + header + pixels + WIDE
    assert middle(wide) == list(ADOBE_RED)


def test_inks_without_a_profile_are_noted() -> None:
    content = file(Image.new("CMYK", (8, 8), (0, 200, 200, 0)), "TIFF")
    assert profile_note(open_image(content)) == ROUGH and read_image(content).mode == "RGB"


def test_second_images_in_a_photograph_count_but_not_its_previews() -> None:
    pair = file(RED, "MPO", save_all=True, append_images=[GREY.convert("RGB")])
    assert open_image(pair).format == "MPO" and frames_of(open_image(pair)) == 2
    assert frames_of(open_image(file(RED, "JPEG"))) == 1
    image = open_image(pair)
    entries = image._getmp()[0xB002]  # type: ignore[attr-defined]
    assert len(entries) == 2
    attribute = struct.pack("<I", 0) + struct.pack("<I", entries[1]["Size"])
    preview = pair.replace(attribute, struct.pack("<I", 0x010002) + attribute[4:])
    assert preview != pair and frames_of(open_image(preview)) == 1
    marked = b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>'
    segment = b"\xff\xe1" + struct.pack(">H", len(marked) + 2) + marked
    gain = pair[:2] + segment + pair[2:]
    assert open_image(gain).format == "JPEG" and frames_of(open_image(gain)) == 2


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "AVIF", "JPEG2000", "BMP", "JPEG", "TIFF"])
def test_damaged_descriptions_are_none(kind: str) -> None:
    """Whatever is changed in the first bytes, an image is decoded or refused as before."""
    said = {"exif": exif(0xFFFF, "R03")} if kind in ("JPEG", "TIFF", "AVIF") else {}
    content = png(RED, {"cICP": bytes([9, 13, 0, 1])}) if kind == "PNG" else file(RED, kind, **said)
    random = np.random.RandomState(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.randint(0, min(len(content), 400), 3):
            damaged[place] = random.randint(256)
        try:
            image = open_image(bytes(damaged))
            profile_note(image)
            if image.width * image.height < 1 << 20:
                read_image(bytes(damaged))
        except BadImage:
            pass
