"""From the cell of a row, or the bytes in it, to a decoded picture within limits; needs Pillow and numpy alone.

Pictures come from strangers: the header is checked against limits before anything is decoded, only plain raster formats
are opened, and paths must stay inside the picture folder.
"""

from __future__ import annotations

import binascii
import functools
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError

# Formats that only describe pixels. Left out on purpose: EPS, WMF and others that start programs or interpret commands.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
_URLSAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")

_OVERSIZED, _BAD_PATH = "oversized picture", "bad path"  # kinds of errors


class MediumError(DataError):
    """The picture, film or sound of a cell cannot be used.

    Attributes:
        kind: what is wrong, in two or three words, by which errors can be counted.
    """

    def __init__(self, message: str, *, kind: str = "damaged picture") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may cost.

    Attributes:
        max_pixels: width x height; the default is the size from which Pillow itself warns of a decompression bomb.
        max_bytes: length of the encoded picture.
    """

    max_pixels: int = 178_956_970
    max_bytes: int = 100 * 2**20


DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, where: str, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a JPEG, PNG, WebP, GIF (first frame), BMP, TIFF … to RGB.

    Transparency is dropped; of 16-bit pictures the upper 8 bits are kept.

    Args:
        data: encoded picture.
        where: place of the picture for messages ("file.tsv:row 17, column 4").
        limits: checked from the header, before any pixel is decoded.

    Raises:
        DataError: not a picture, damaged, truncated or too large.
    """
    if not data:
        raise MediumError(f"{where}: the picture is empty: fill in the cell or remove the row", kind="empty cell")
    if len(data) > limits.max_bytes:
        raise MediumError(
            f"{where}: the picture has {len(data)} bytes, allowed are {limits.max_bytes}: shrink it", kind=_OVERSIZED
        )
    image = _open_header(data, where)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise MediumError(
            f"{where}: {width} x {height} pixels, allowed are {limits.max_pixels} in all: shrink the picture",
            kind=_OVERSIZED,
        )
    try:
        image.load()
        return to_rgb(image)
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged bytes.
        raise MediumError(
            f"{where}: the picture is damaged ({_one_line(error)}): write it anew or remove the row"
        ) from error


def read_cell_image(
    cell: str | bytes,
    where: str,
    image_dir: Path | None = None,
    from_path: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Image.Image:
    """Picture of a cell: base64 (url-safe or standard alphabet) or, with ``from_path``, a path below ``image_dir``.

    Raises:
        DataError: as :func:`decode_image`; not base64; no such file; a path that leaves ``image_dir``.
        ConfigError: ``from_path`` without ``image_dir``.
    """
    if not from_path:
        return decode_image(_from_base64(cell, where, limits), where, limits)
    name = cell if isinstance(cell, str) else cell.decode("utf-8", errors="replace")
    path = path_below(name, where, image_dir)
    try:
        if path.stat().st_size > limits.max_bytes:
            raise MediumError(
                f"{where}: {path} is larger than the allowed {limits.max_bytes} bytes: shrink the picture",
                kind=_OVERSIZED,
            )
        data = path.read_bytes()
    except OSError as error:
        raise MediumError(
            f"{where}: {path} cannot be read ({error.strerror}): correct the path or --image-dir", kind="missing file"
        ) from error
    return decode_image(data, f"{where} ({path})", limits)


@functools.lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Allowed formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open_header(data: bytes, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=_formats())
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MediumError(
            f"{where}: too many pixels ({_one_line(error)}): shrink the picture", kind=_OVERSIZED
        ) from error
    except Image.UnidentifiedImageError as error:
        raise MediumError(
            f"{where}: not a picture in a known format: write it anew or remove the row", kind="not a picture"
        ) from error
    except Exception as error:  # Pillow's parsers raise nearly every type on damaged headers.
        raise MediumError(
            f"{where}: the picture is damaged ({_one_line(error)}): write it anew or remove the row"
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, without transparency; of 16-bit grey the upper 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey to 255, which turns nearly every picture white.
        grey = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def _from_base64(cell: str | bytes, where: str, limits: ImageLimits) -> bytes:
    if len(cell) > (limits.max_bytes + 3) * 4 // 3:
        raise MediumError(
            f"{where}: the picture is larger than the allowed {limits.max_bytes} bytes: shrink it", kind=_OVERSIZED
        )
    try:
        text = cell.encode("ascii") if isinstance(cell, str) else cell
        if b"-" in text or b"_" in text:
            text = text.translate(_URLSAFE_TO_STANDARD)
        return binascii.a2b_base64(text)
    except ValueError as error:
        raise MediumError(
            f"{where}: not base64 ({_one_line(error)}): write the picture anew or remove the row", kind="not base64"
        ) from error


def path_below(name: str, where: str, folder: Path | None) -> Path:
    """Real path of the file that a cell names by its path below ``folder``.

    Raises:
        DataError: a path that leaves the folder.
        ConfigError: no folder.
    """
    if folder is None:
        raise ConfigError(f"{where} holds a path: name the folder that paths are relative to with --image-dir")
    try:
        root = folder.resolve()
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise MediumError(f"{where}: not a path ({_one_line(error)}): correct the cell", kind=_BAD_PATH) from error
    if not path.is_relative_to(root):
        raise MediumError(f"{where}: path '{name}' leaves the folder {folder}: use paths below it", kind=_BAD_PATH)
    return path


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
