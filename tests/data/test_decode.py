"""Which pictures are taken as pixels, and which are refused by name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import encoded, saved, some_images
from PIL import Image

from disback_cli.data.decode import decode, header, is_picture
from disback_cli.errors import UserError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_return_every_pixel(kind: str, options: dict[str, bool], channels: int) -> None:
    pixels = some_images(1, channels)[0]
    data = encoded(pixels, kind, **options)
    wanted = np.repeat(pixels, 3, axis=0) if kind == "WEBP" and channels == 1 else pixels  # WebP knows no grey
    assert np.array_equal(decode(data, "x"), wanted)
    assert header(data, "x") == wanted.shape


def test_jpeg_is_read() -> None:
    flat = np.full((3, 8, 16), 200, np.uint8)
    assert np.abs(decode(encoded(flat, "JPEG"), "x").astype(int) - 200).max() <= 1
    assert decode(encoded(flat[:1], "JPEG"), "x").shape == (1, 8, 16)


def test_palette_and_bilevel_become_eight_bits() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(saved(image), "x").tolist() == [[[10, 40], [40, 10]], [[20, 50], [50, 20]], [[30, 60], [60, 30]]]
    assert header(saved(image), "x").channels == 3
    assert decode(saved(Image.fromarray(np.eye(2, dtype=bool))), "x").tolist() == [[[255, 0], [0, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_only_if_opaque(mode: str) -> None:
    image = Image.new(mode, (4, 4), (9,) * (len(mode) - 1) + (255,))
    assert decode(saved(image), "x").tolist() == [[[9] * 4] * 4] * (len(mode) - 1)
    image.putpixel((2, 1), (9,) * (len(mode) - 1) + (254,))
    with pytest.raises(UserError, match="cat.png: has transparent pixels"):
        decode(saved(image), "cat.png")


def test_a_transparent_colour_is_refused_where_it_occurs() -> None:
    image = Image.new("L", (2, 2), 7)
    assert decode(saved(image, transparency=8), "x").tolist() == [[[7, 7], [7, 7]]]
    with pytest.raises(UserError, match="transparent"):
        decode(saved(image, transparency=7), "x")


def test_more_than_eight_bits_are_refused() -> None:
    with pytest.raises(UserError, match="deep.png: more than 8 bits"):
        header(saved(Image.fromarray(np.zeros((2, 2), np.uint16))), "deep.png")
    colour = _png_of_16_bit_colour()
    assert Image.open(io.BytesIO(colour)).mode == "RGB"  # Pillow drops the lower eight bits without a word
    with pytest.raises(UserError, match="more than 8 bits"):
        decode(colour, "x")


def _png_of_16_bit_colour() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")


def test_other_colour_spaces_and_animations_are_refused() -> None:
    with pytest.raises(UserError, match="colour space CMYK"):
        decode(saved(Image.new("CMYK", (4, 4)), "JPEG"), "x")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    with pytest.raises(UserError, match="animation"):
        decode(saved(frames[0], save_all=True, append_images=frames[1:]), "x")


def test_damaged_files_are_named() -> None:
    whole = encoded(some_images(1, size=32)[0])
    for data in (b"", b"not an image", whole[:20], whole[: len(whole) // 2]):
        with pytest.raises(UserError, match="a/b.png: damaged or no image"):
            decode(data, "a/b.png")
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "GIF")
    with pytest.raises(UserError, match="damaged or no image"):
        header(buffer.getvalue(), "x")


def test_names_of_pictures() -> None:
    names = ["a.png", "b/c.JPG", "d.jpeg", "e.webp", "f.bmp", "g.gif", ".h.png", ".git/i.png", "__MACOSX/j.png", "k"]
    assert [name for name in names if is_picture(name)] == names[:5]
