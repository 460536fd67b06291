"""Encoded pictures to uint8 pixels, with what the field takes for granted checked: 8 bits, grey or RGB, opaque."""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from disback_cli.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # nothing else: some of Pillow's readers start other programs
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "RGBa": 3, "RGBX": 3}
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24  # byte of the IHDR chunk
# What Pillow raises for damaged files; OSError includes UnidentifiedImageError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class Header(NamedTuple):
    """What a picture says of itself before it is decoded; channels is 1 (grey) or 3 (RGB, palette)."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        """Size and colour in words."""
        return f"{self.height}x{self.width} {'grey' if self.channels == 1 else 'RGB'}"


def is_hidden(name: str) -> bool:
    """Whether a relative path is what systems leave behind: dot files and folders, the Mac's resource forks."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def is_picture(name: str) -> bool:
    """Whether a file of this relative path is read as a picture: PNG, JPEG, WebP or BMP, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def header(data: bytes, where: str) -> Header:
    """Size and colour without decoding; UserError naming ``where`` if `decode` would refuse the kind of picture."""
    try:
        with _open(data, where) as image:
            return Header(_CHANNELS[image.mode], image.height, image.width)
    except _DAMAGED as error:
        raise _unreadable(where, error) from error


def decode(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [C, H, W], C = 1 (grey) or 3 (RGB), of one encoded picture.

    Palettes become RGB, bilevel becomes 0 and 255. An alpha channel is dropped if every pixel is opaque. The rotation
    note of cameras (EXIF) is not followed: pixels are taken as they are stored, as EDM's tools do.

    Raises:
        UserError: naming ``where``, for a damaged file, more than 8 bits, transparency, CMYK, an animation.
    """
    try:
        with _open(data, where) as image:
            channels = _CHANNELS[image.mode]
            if image.mode in _WITH_ALPHA or "transparency" in image.info:
                _check_opaque(image, where)
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except _DAMAGED as error:
        raise _unreadable(where, error) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _open(data: bytes, where: str) -> Image.Image:
    """The picture, header read; refuses the kinds that `_CHANNELS` does not know."""
    # Pillow hands 16-bit colour out as 8 bits without a word.
    deep = data.startswith(_PNG_SIGNATURE) and data[_PNG_BIT_DEPTH : _PNG_BIT_DEPTH + 1] == b"\x10"
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if deep or image.mode.startswith(("I", "F")):
        raise UserError(f"{where}: more than 8 bits per channel; convert the image to 8 bits first")
    if image.mode not in _CHANNELS:
        raise UserError(f"{where}: colour space {image.mode}; convert the image to RGB first")
    if getattr(image, "is_animated", False):
        raise UserError(f"{where}: an animation, not one image")
    return image


def _check_opaque(image: Image.Image, where: str) -> None:
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    if int(alpha.min()) < 255:
        raise UserError(
            f"{where}: has transparent pixels, and no colour is right behind them; "
            "put the image on a background and save it without alpha"
        )


def _unreadable(where: str, error: BaseException) -> UserError:
    detail = str(error).split(" <_io.", 1)[0] or type(error).__name__
    return UserError(f"{where}: damaged or no image ({detail}); replace the file")
