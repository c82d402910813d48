"""Image files of every kind, against pixels that are worked out here from the array they were written from."""

import io

import numpy as np
import pytest
from PIL import Image

from tracefl.errors import DataError
from tracefl.learning.datasets.images import as_rgb, decode_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, (9, 9, 9)], [(8, 8, 8), (7, 7, 7)]], np.uint8)  # 3 rows, 2 columns

# What turns the stored pixels upright, by EXIF's orientation (CIPA DC-008, 4.6.5.1.6), in NumPy's words.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image, kind="PNG", **options):
    return np.asarray(decode_image(encoded(image, kind, **options)))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_photograph_is_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decoded(Image.fromarray(CORNERS), kind, exif=exif, **options)
    assert found.tolist() == UPRIGHT[orientation](CORNERS).tolist()


def test_a_jpeg_is_turned_upright():
    half = np.zeros((32, 64, 3), np.uint8)
    half[:, :32] = 255  # light on the left, which is on top once it was turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(Image.fromarray(half), "JPEG", exif=exif)
    assert found.shape == (64, 32, 3)
    assert found[:24].min() > 250
    assert found[-24:].max() < 5


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80\xff\xff\xff\xff"])
def test_a_palette_gives_its_colours(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    assert decoded(image, **options).tolist() == [[list(RED), list(GREEN), list(BLUE)]]


def test_transparency_leaves_the_colours_beneath():
    image = Image.new("RGBA", (2, 1))
    image.putdata([(200, 100, 50, 0), (1, 2, 3, 255)])
    assert decoded(image).tolist() == [[[200, 100, 50], [1, 2, 3]]]
    gray = Image.new("LA", (2, 1))
    gray.putdata([(200, 0), (3, 255)])
    assert decoded(gray).tolist() == [[[200] * 3, [3] * 3]]


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("PPM", "I"), ("JPEG2000", "I;16")])
def test_of_sixteen_bits_the_upper_eight_are_kept(kind, mode):
    values = np.array([[0, 255, 256, 257 * 77, 65535]], np.uint16).repeat(2, axis=0)
    content = encoded(Image.fromarray(values), kind)
    assert Image.open(io.BytesIO(content)).mode == mode
    found = np.asarray(decode_image(content))
    assert found.tolist() == [[[v] * 3 for v in (0, 0, 1, 77, 255)]] * 2
    assert np.asarray(as_rgb(values)).tolist() == found.tolist()


def test_one_bit_is_black_and_white():
    bits = np.array([[True, False]])
    assert decoded(Image.fromarray(bits)).tolist() == [[[255] * 3, [0] * 3]]
    assert np.asarray(as_rgb(bits)).tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_is_converted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan: red
    assert np.abs(decoded(image, "TIFF").astype(int) - RED).max() == 0
    assert np.abs(decoded(image, "JPEG").astype(int) - RED).max() < 10


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (found == RED).all()


def test_a_file_that_pillow_finds_large_is_decoded_in_silence(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow warns from 41 pixels and refuses from 81
    assert decoded(Image.new("L", (8, 8))).shape == (8, 8, 3)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"words", "is no image that can be read; give a PNG or JPEG"),
        (encoded(Image.new("RGB", (64, 64)))[:60], "is damaged and cannot be decoded .*; give the whole file"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900], "is damaged and cannot be decoded .*truncated"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point pixels .* whose white is not known"),
        (encoded(Image.new("I", (4, 4), -1), "TIFF"), "has pixels from -1 to -1, expected 0 to 65535"),
        (encoded(Image.new("I", (4, 4), 70000), "TIFF"), "has pixels from 70000 to 70000"),
    ],
)
def test_what_cannot_be_read_is_one_line(content, message):
    with pytest.raises(DataError, match=message) as caught:
        decode_image(content)
    assert "\n" not in str(caught.value)


def test_a_giant_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(
        DataError, match=r"is too large \(Image size \(64 pixels\) exceeds limit of 60 pixels\); make it"
    ):
        decoded(Image.new("L", (8, 8)))


def test_damage_anywhere_is_one_line(recwarn):
    """A changed byte anywhere is either not noticed or refused in one line."""
    generator = np.random.default_rng(0)
    noise = Image.effect_noise((12, 9), 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(noise, kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP")]
    files += [encoded(noise, "TIFF"), encoded(noise.quantize(8), "GIF"), encoded(noise, "BMP")]
    refused = []
    for content in files:
        for _ in range(100):
            damaged = bytearray(content)
            damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
            try:
                assert decode_image(bytes(damaged)).mode == "RGB"
            except DataError as error:
                refused.append(str(error))
    assert len(refused) > 50
    assert not [message for message in refused if "\n" in message]
    assert not recwarn.list
