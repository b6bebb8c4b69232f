"""One image of any kind becomes what the archive stores: placed, scaled, converted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import BadImage
from training.data.importers.image import Target, convert_image, place
from training.data.importers.rules import Rules
from training.data.sizes import Size

GREY, RGB, RGBA = (
    Target(Size(8, 8), channels, Rules(alpha=a)) for channels, a in ((1, "white"), (3, "white"), (4, "keep"))
)


side = st.integers(1, 3000)
grown = st.builds(
    lambda k, short, long, wide: Size(short << k, long << k) if wide else Size(long << k, short << k),
    st.integers(0, 8), st.integers(4, 7), st.integers(7, 12), st.booleans(),
)  # fmt: skip


@given(side, side, grown, st.sampled_from(["center", "fit"]))
def test_a_placement_lies_inside_image_and_target(height: int, width: int, target: Size, crop: str) -> None:
    (left, top, right, bottom), size = place(Size(height, width), Target(target, 3, Rules(crop=crop, upscale=True)))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert 0 < size.width <= target.width and 0 < size.height <= target.height
    if crop == "center":
        assert size == target and (right - left == width or bottom - top == height)
    else:
        assert (left, top, right, bottom) == (0, 0, width, height)
        assert size.width == target.width or size.height == target.height


@given(side, side, grown, st.sampled_from(["center", "fit"]))
def test_nothing_is_enlarged_without_upscale(height: int, width: int, target: Size, crop: str) -> None:
    try:
        (left, top, right, bottom), size = place(Size(height, width), Target(target, 3, Rules(crop=crop)))
    except BadImage:
        assert height < target.height or width < target.width
        return
    assert right - left >= size.width - 1 and bottom - top >= size.height - 1


def test_an_image_of_the_right_size_is_copied() -> None:
    for crop in ("center", "fit", "none"):
        placed = place(Size(64, 96), Target(Size(64, 96), 3, Rules(crop=crop)))
        assert placed == ((0, 0, 96, 64), Size(64, 96))
    with pytest.raises(BadImage, match="not 96x64"):
        place(Size(64, 97), Target(Size(64, 96), 3, Rules(crop="none", upscale=True)))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def red(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (16, 16), (255, 0, 0)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "BMP"),
        ("CMYK", "JPEG"),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("CMYK", "TIFF"),
        ("LAB", "TIFF"),
    ],
)
def test_red_stays_red_in_every_mode(mode: str, kind: str) -> None:
    image = red() if mode == "LAB" else red(mode)
    pixels = convert_image(encode(image, kind), RGB)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, np.full((8, 8, 3), (255, 0, 0)), atol=4)


@pytest.mark.parametrize("alpha", ["white", "drop", "keep"])
@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_transparency_follows_the_rule(mode: str, alpha: str) -> None:
    image = Image.new("RGBA", (16, 16), (40, 40, 40, 0))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    pixels = convert_image(encode(image), Target(Size(8, 8), 4 if alpha == "keep" else 3, Rules(alpha=alpha)))
    if alpha == "white":
        assert (pixels == 255).all()
    elif alpha == "keep":
        assert pixels.shape[2] == 4 and (pixels[..., 3] == 0).all()
    elif mode != "P":  # a quantiser need not keep the colour of what cannot be seen
        assert (pixels == 40).all()


def test_no_colour_leaks_out_of_the_transparent_part() -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    image.paste((0, 255, 0, 0), (0, 0, 7, 16))
    pixels = convert_image(encode(image), RGBA)
    assert (pixels[..., 1][pixels[..., 3] > 0] <= 2).all()


def test_opaque_images_get_an_opaque_fourth_channel() -> None:
    assert (convert_image(encode(red()), RGBA)[..., 3] == 255).all()


def test_transparent_grey_by_a_key_colour() -> None:
    assert (convert_image(encode(Image.new("L", (8, 8), 7), transparency=7), GREY) == 255).all()


def test_sixteen_bits_keep_their_upper_eight() -> None:
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    for kind in ("PNG", "TIFF", "PPM"):
        np.testing.assert_array_equal(convert_image(encode(Image.fromarray(ramp), kind), GREY)[..., 0], ramp >> 8)


def test_black_and_white() -> None:
    bits = np.indices((8, 8)).sum(0) % 2 == 0
    np.testing.assert_array_equal(convert_image(encode(Image.fromarray(bits)), GREY)[..., 0], bits * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(orientation: int) -> None:
    upright = Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(_as_the_sensor_saw_it(orientation))
    np.testing.assert_array_equal(convert_image(encode(stored, exif=exif), RGB), np.asarray(upright))


def _as_the_sensor_saw_it(orientation: int) -> Image.Transpose:
    """The inverse of what the EXIF standard says to do for display."""
    t = Image.Transpose
    inverses = [
        t.FLIP_LEFT_RIGHT,
        t.ROTATE_180,
        t.FLIP_TOP_BOTTOM,
        t.TRANSPOSE,
        t.ROTATE_90,
        t.TRANSVERSE,
        t.ROTATE_270,
    ]
    return inverses[orientation - 2]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("green", "blue", "white")]
    data = encode(red().resize((8, 8)), "GIF", save_all=True, append_images=frames)
    assert (convert_image(data, RGB)[..., 0] == 255).all() and (convert_image(data, RGB)[..., 1] == 0).all()


def test_the_centre_is_kept_and_the_rest_cut() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (convert_image(encode(Image.fromarray(wide)), RGB) == 200).all()


@pytest.mark.parametrize("border", [None, "black", "edge", "blur"])
@pytest.mark.parametrize("shape", [(8, 4), (4, 8)])
def test_fit_puts_the_image_in_the_middle(shape: tuple[int, int], border: str | None) -> None:
    pixels = np.full((*shape, 3), 80, np.uint8)
    pixels[shape[0] // 4 : -shape[0] // 4, shape[1] // 4 : -shape[1] // 4] = 255
    found = convert_image(pixels, Target(Size(8, 8), 3, Rules(crop="fit", border=border)))  # type: ignore[arg-type]
    assert np.array_equal(found, found[::-1]) and np.array_equal(found, found[:, ::-1])


def test_fit_reduces_what_is_large_enough_on_one_side() -> None:
    assert place(Size(4, 16), Target(Size(8, 8), 3, Rules(crop="fit"))) == ((0, 0, 16, 4), Size(2, 8))
    for size, crop in ((Size(4, 16), "center"), (Size(4, 7), "fit")):
        with pytest.raises(BadImage, match="smaller than 8x8"):
            place(size, Target(Size(8, 8), 3, Rules(crop=crop)))  # type: ignore[arg-type]


def test_fit_shows_the_whole_on_black_or_on_nothing() -> None:
    wide = encode(Image.new("RGB", (16, 8), "white"))
    pixels = convert_image(wide, Target(Size(8, 8), 3, Rules(crop="fit")))
    assert (pixels[2:6] == 255).all() and (pixels[:2] == 0).all() and (pixels[6:] == 0).all()
    assert (convert_image(wide, Target(Size(8, 8), 4, Rules(crop="fit", alpha="keep")))[:2] == 0).all()


def test_the_box_filter_averages() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (16, 16), np.uint8)
    small = convert_image(encode(Image.fromarray(pixels)), Target(Size(8, 8), 1, Rules(resize_filter="box")))
    np.testing.assert_allclose(small[..., 0], pixels.reshape(8, 2, 8, 2).mean((1, 3)), atol=1)


def test_the_right_size_passes_unchanged() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(convert_image(pixels, RGB), pixels)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"just some words", "not an image"),
        (encode(red())[:45], "truncated|broken"),
        (
            encode(Image.fromarray(np.random.RandomState(0).randint(0, 256, (99, 99, 3), np.uint8)), "JPEG")[:900],
            "truncated",
        ),
        (encode(Image.fromarray(np.full((9, 9), 99, np.float32)), "TIFF"), "floating"),
        (encode(Image.fromarray(np.full((9, 9), -5, np.int32)), "TIFF"), "32-bit"),
        (encode(Image.new("L", (7, 99))), "smaller"),
    ],
)
def test_reasons_are_plain(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        convert_image(data, RGB)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_a_reason_and_never_a_crash(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    whole = bytearray(encode(red(), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = convert_image(bytes(whole[: data.draw(st.integers(0, len(whole)))]), RGB)
    except BadImage as reason:
        assert str(reason)
    else:
        assert pixels.shape == (8, 8, 3)
