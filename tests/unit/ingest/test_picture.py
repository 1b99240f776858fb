"""Decoding: every format and mode gives the right pixels, everything else a reason."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from imagedex.core.images import FailureReason
from imagedex.ingest.picture import Picture, decode_picture
from imagedex.ingest.unusable import UnusableImage
from imagedex.testing.hostile_images import (
    FORMATS,
    QUADRANTS,
    damaged_png,
    encode,
    noise,
    png_bomb,
    quadrants,
)

MAX_PIXELS = 10_000_000


def decode(data: bytes) -> Picture:
    return decode_picture(data, max_pixels=MAX_PIXELS)


def decode_reduced(data: bytes, least: int) -> Picture:
    return decode_picture(data, max_pixels=MAX_PIXELS, enough_size=lambda *_: (least, least))


def reason_of(data: bytes, *, max_pixels: int = MAX_PIXELS) -> FailureReason:
    with pytest.raises(UnusableImage) as caught:
        decode_picture(data, max_pixels=max_pixels)
    return caught.value.reason


def corners(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The colours in the middles of the four quadrants, in QUADRANTS' order."""
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(np.int64)
    rows, columns = (
        (pixels.shape[0] // 4, -pixels.shape[0] // 4),
        (
            pixels.shape[1] // 4,
            -pixels.shape[1] // 4,
        ),
    )
    return np.array([pixels[row, column] for row in rows for column in columns])


def assert_upright(image: Image.Image, tolerance: int) -> None:
    assert np.abs(corners(image) - np.array(QUADRANTS)).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [(name, 12 if name in ("JPEG", "WEBP", "HEIF", "AVIF") else 0) for name in FORMATS.values()],
)
def test_each_format_gives_its_pixels(name: str, tolerance: int) -> None:
    picture = decode(encode(quadrants(), name))
    assert picture.format == name
    assert picture.image.size == (64, 48)
    assert_upright(picture.image, tolerance)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_turned_upright(name: str, orientation: int) -> None:
    # What a camera stores so that the tag's turn or flip shows the scene upright.
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    scene = quadrants(64, 48)
    stored = scene.transpose(stored_as[orientation]) if orientation in stored_as else scene
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = decode(encode(stored, name, exif=exif.tobytes()))
    assert picture.image.size == (64, 48)
    assert_upright(picture.image, 12)


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_a_senseless_orientation_is_left_alone(value: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    assert_upright(decode(encode(quadrants(), "PNG", exif=exif.tobytes())).image, 0)


def test_damaged_exif_does_not_cost_the_picture() -> None:
    data = encode(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff")
    assert_upright(decode(data).image, 12)


def test_cmyk_is_not_inverted() -> None:
    data = encode(quadrants().convert("CMYK"), "JPEG")
    assert Image.open(BytesIO(data)).mode == "CMYK"
    assert_upright(decode(data).image, 12)
    assert_upright(decode(encode(quadrants().convert("CMYK"), "TIFF")).image, 1)


def test_a_palette_keeps_its_colours() -> None:
    for name in ("PNG", "GIF", "BMP", "TIFF"):
        assert_upright(decode(encode(quadrants().quantize(4), name)).image, 0)


def test_lab_is_converted() -> None:
    lab = Image.new("LAB", (8, 8), (255, 128, 128))
    image = decode(encode(lab, "TIFF")).image
    assert np.asarray(image).min() >= 250


@pytest.mark.parametrize("mode", ["YCbCr", "RGBX"])
def test_other_colour_modes_of_tiff_are_converted(mode: str) -> None:
    assert_upright(decode(encode(quadrants().convert(mode), "TIFF")).image, 3)


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (16, 8))
    image.paste(1, (8, 0, 16, 8))
    for name in ("PNG", "TIFF", "BMP", "GIF"):
        pixels = np.asarray(decode(encode(image, name)).image)
        assert (pixels[:, :8] == 0).all()
        assert (pixels[:, 8:] == 255).all()


def test_grey_is_grey_in_all_three_channels() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name in ("PNG", "TIFF", "BMP", "GIF"):
        pixels = np.asarray(decode(encode(Image.fromarray(ramp), name)).image)
        assert (pixels == ramp[..., None]).all()


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(name: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    data = encode(Image.fromarray(ramp), name)
    assert Image.open(BytesIO(data)).mode.startswith("I")
    pixels = np.asarray(decode(data).image)
    assert (pixels[..., 0].ravel() == np.arange(256)).all()


def test_a_dark_sixteen_bit_picture_stays_dark() -> None:
    dark = np.full((8, 8), 2570, dtype=np.uint16)
    assert (np.asarray(decode(encode(Image.fromarray(dark), "PNG")).image) == 10).all()


def test_sixteen_bit_tiff_that_counts_from_white_is_not_a_negative() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    # 262: PhotometricInterpretation, 0: WhiteIsZero. Pillow writes the values as they are.
    data = encode(Image.fromarray(65535 - ramp), "TIFF", tiffinfo={262: 0})
    assert Image.open(BytesIO(data)).tag_v2[262] == 0  # type: ignore[attr-defined]
    pixels = np.asarray(decode(data).image)[..., 0].ravel()
    assert (np.diff(pixels.astype(int)) >= 0).all()
    assert (pixels[0], pixels[-1]) == (0, 255)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.int32), [0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 1_000_000]], np.int32), [0, 255]),
        (np.array([[-500, 500]], np.int32), [0, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.0, 1.0, np.inf, -np.inf]], np.float32), [0, 0, 255, 255, 0]),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0]),
        (np.array([[70000.0, 70000.0]], np.float32), [0, 0]),
    ],
)
def test_wide_and_floating_grey_is_read_by_its_range(
    values: np.ndarray[tuple[int, int], np.dtype[np.generic]], expected: list[int]
) -> None:
    pixels = np.asarray(decode(encode(Image.fromarray(values), "TIFF")).image)
    assert pixels[0, :, 0].tolist() == expected


def half_transparent(mode: str) -> Image.Image:
    """Black: opaque on the left half, fully transparent on the right."""
    image = Image.new("RGBA", (16, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (8, 0, 16, 8))
    return image.convert(mode)


def assert_white_on_the_right(data: bytes, tolerance: int = 0) -> None:
    pixels = np.asarray(decode(data).image)
    assert pixels.shape == (8, 16, 3)
    assert pixels[:, :7].max() <= tolerance
    assert pixels[:, 9:].min() >= 255 - tolerance


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGBA", "PNG"),
        ("RGBA", "TIFF"),
        ("RGBA", "GIF"),
        ("LA", "PNG"),
        ("LA", "TIFF"),
        ("P", "PNG"),
        ("P", "GIF"),
    ],
)
def test_transparency_shows_white(mode: str, name: str) -> None:
    if mode == "P":
        image = Image.new("P", (16, 8))
        image.putpalette([0, 0, 0, 0, 0, 255])
        image.paste(1, (8, 0, 16, 8))
        assert_white_on_the_right(encode(image, name, transparency=1))
    else:
        assert_white_on_the_right(encode(half_transparent(mode), name))


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "HEIF"])
def test_transparency_of_lossy_formats_shows_white(name: str) -> None:
    image = half_transparent("RGBA").resize((64, 32), Image.Resampling.NEAREST)
    pixels = np.asarray(decode(encode(image, name)).image)
    assert pixels[:, :28].max() <= 12
    assert pixels[:, 36:].min() >= 243


def test_half_transparent_black_on_white_is_grey() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.asarray(decode(encode(image, "PNG")).image).tolist() == [[[127] * 3] * 4] * 4


def test_a_palette_with_several_alphas_is_composed() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.putpixel((1, 0), 1)
    pixels = np.asarray(decode(encode(image, "PNG", transparency=b"\x80\x00")).image)
    assert pixels[0, :, 0].tolist() == [127, 255]


@pytest.mark.parametrize(
    ("mode", "value", "key"), [("L", 77, 77), ("RGB", (9, 8, 7), (9, 8, 7)), ("1", 1, 255)]
)
def test_a_transparent_colour_of_png_shows_white(mode: str, value: object, key: object) -> None:
    image = Image.new(mode, (16, 8))
    image.paste(value, (8, 0, 16, 8))  # type: ignore[arg-type]
    assert_white_on_the_right(encode(image, "PNG", transparency=key))


def test_a_transparent_grey_of_sixteen_bits_shows_white() -> None:
    values = np.zeros((8, 16), np.uint16)
    values[:, 8:] = 4096
    assert_white_on_the_right(encode(Image.fromarray(values), "PNG", transparency=4096))


@pytest.mark.parametrize("name", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_counts(name: str) -> None:
    data = encode(
        quadrants(), name, save_all=True, append_images=[Image.new("RGB", (64, 48)), noise()]
    )
    assert Image.open(BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert_upright(decode(data).image, 16)


def test_only_supported_formats_are_tried() -> None:
    for name in ("PPM", "ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000"):
        file = BytesIO()
        quadrants().save(file, name)
        assert reason_of(file.getvalue()) is FailureReason.NOT_AN_IMAGE, name


def test_no_bytes_are_empty() -> None:
    assert reason_of(b"") is FailureReason.EMPTY


@pytest.mark.parametrize("data", [b"x", b"hello, this is text", bytes(5000), b"\xff" * 100])
def test_other_bytes_are_no_image(data: bytes) -> None:
    assert reason_of(data) is FailureReason.NOT_AN_IMAGE


def test_nonsense_between_sound_ends_is_damage() -> None:
    assert reason_of(damaged_png()) is FailureReason.DAMAGED
    tiff = bytearray(encode(quadrants(), "TIFF", compression="tiff_lzw"))
    tiff[8:400] = b"\xff" * 392
    assert reason_of(bytes(tiff)) is FailureReason.DAMAGED


def test_a_bomb_fails_by_its_header() -> None:
    # One bit a pixel: Pillow alone would take 3.6 GB for it.
    assert reason_of(png_bomb()) is FailureReason.TOO_MANY_PIXELS


@pytest.mark.parametrize("name", FORMATS.values())
def test_the_pixel_limit_is_exact_for_each_format(name: str) -> None:
    data = encode(quadrants(64, 48), name)
    assert decode_picture(data, max_pixels=64 * 48).image.size == (64, 48)
    assert reason_of(data, max_pixels=64 * 48 - 1) is FailureReason.TOO_MANY_PIXELS


def test_pillows_own_limit_is_out_of_the_way() -> None:
    # Beyond the 179 million pixels at which Pillow would refuse the header already.
    with pytest.raises(UnusableImage) as caught:
        decode_picture(png_bomb(14_000, 13_000), max_pixels=200_000_000)
    assert caught.value.reason is FailureReason.TRUNCATED


@pytest.mark.parametrize("name", FORMATS.values())
def test_a_file_cut_anywhere_has_one_outcome(name: str) -> None:
    data = encode(noise(48, 40), name)
    cuts = sorted({*range(1, 64), *np.linspace(64, len(data) - 1, 80).astype(int).tolist()})
    reasons = {}
    for cut in cuts:
        try:
            assert decode(data[:cut]).image.size == (48, 40)
        except UnusableImage as unusable:
            reasons[cut] = unusable.reason
    # A letter or two can begin many things, so the first bytes may pass for no image.
    assert {reason for cut, reason in reasons.items() if cut >= 16} == {FailureReason.TRUNCATED}
    assert len(reasons) > len(cuts) * 0.9


@given(
    name=st.sampled_from(sorted(FORMATS.values())),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_changed_bytes_raise_nothing_but_a_reason(
    name: str, places: list[tuple[float, int]]
) -> None:
    data = bytearray(encode(quadrants(24, 16), name))
    for place, value in places:
        data[int(place * (len(data) - 1))] = value
    try:
        outcome = decode(bytes(data)).image.mode
    except UnusableImage as unusable:
        outcome = unusable.reason
    except MemoryError:  # A header that promises much; the decoder process says so.
        outcome = "memory"
    assert outcome in {"RGB", "memory", *FailureReason}


def photo(width: int = 640, height: int = 480) -> Image.Image:
    """A picture with the quadrants' colours and some noise, so that every block has bytes."""
    grain = np.random.default_rng(1).normal(0, 12, (height, width, 3))
    pixels = np.asarray(quadrants().resize((width, height))) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("least", "size"),
    [(480, (640, 480)), (241, (640, 480)), (240, (320, 240)), (100, (160, 120)), (1, (80, 60))],
)
def test_a_jpeg_is_decoded_at_the_least_scale_that_is_enough(
    least: int, size: tuple[int, int]
) -> None:
    picture = decode_reduced(encode(photo(), "JPEG"), least)
    assert picture.image.size == size
    assert (picture.width, picture.height) == (640, 480)
    assert_upright(picture.image, 40)


@pytest.mark.parametrize("least", [0, -5])
def test_a_preprocess_that_asks_for_nothing_gets_the_least_scale(least: int) -> None:
    assert decode_reduced(encode(photo(), "JPEG"), least).image.size == (80, 60)


def test_a_preprocess_may_ask_for_the_whole_picture() -> None:
    data = encode(photo(), "JPEG")
    picture = decode_picture(data, max_pixels=MAX_PIXELS, enough_size=lambda *_: None)
    assert np.array_equal(np.asarray(picture.image), np.asarray(decode(data).image))


def test_enough_size_is_asked_with_the_size_in_the_header_before_any_rotation() -> None:
    asked = []

    def enough_size(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return 240, 180

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encode(photo(), "JPEG", exif=exif.tobytes())
    decode_picture(data, max_pixels=MAX_PIXELS, enough_size=enough_size)
    assert asked == [(640, 480)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_upright_and_so_are_its_facts(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(photo(), "JPEG", exif=exif.tobytes())
    whole, reduced = decode(data), decode_reduced(data, 200)
    assert (reduced.width, reduced.height) == (whole.width, whole.height) == whole.image.size
    assert reduced.image.size == (whole.width // 2, whole.height // 2)
    assert np.abs(corners(reduced.image) - corners(whole.image)).max() <= 40


@pytest.mark.parametrize("name", [name for name in FORMATS.values() if name != "JPEG"])
def test_other_formats_are_decoded_whole(name: str) -> None:
    data = encode(quadrants(), name)
    assert decode_reduced(data, 1).image.size == decode(data).image.size == (64, 48)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_in_other_modes_are_reduced_to_the_same_colours(mode: str) -> None:
    data = encode(photo().convert(mode), "JPEG")
    whole, reduced = decode(data).image, decode_reduced(data, 200).image
    assert reduced.size == (320, 240)
    assert np.abs(corners(reduced) - corners(whole)).max() <= 40


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_jpeg_that_breaks_off_is_found_at_a_reduced_scale_too(
    share: float, progressive: bool
) -> None:
    whole = encode(photo(), "JPEG", progressive=progressive)
    data = whole[: int(len(whole) * share)]
    assert reason_of(data) is FailureReason.TRUNCATED
    with pytest.raises(UnusableImage) as caught:
        decode_reduced(data, 1)
    assert caught.value.reason is FailureReason.TRUNCATED


def test_the_limit_of_pixels_holds_for_the_full_size() -> None:
    data = encode(photo(), "JPEG")
    with pytest.raises(UnusableImage) as caught:
        decode_picture(data, max_pixels=640 * 480 - 1, enough_size=lambda *_: (1, 1))
    assert caught.value.reason is FailureReason.TOO_MANY_PIXELS
