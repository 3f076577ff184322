"""Pictures from strangers."""

from __future__ import annotations

import base64
import io
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from unival_plugin.data.picture_cells import ImageLimits, MediumError, decode_image, read_cell_image
from unival_plugin.errors import ConfigError, DataError


def gradient(width: int, height: int) -> Image.Image:
    """A picture with many colours."""
    x = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    y = np.linspace(0, 255, height).astype(np.uint8)[:, None].repeat(width, 1)
    mixed = (7 * (np.arange(width)[None] + np.arange(height)[:, None]) % 256).astype(np.uint8)
    return Image.fromarray(np.stack([x, y, mixed], -1))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class TestDecode:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    def test_every_png_mode_becomes_rgb(self, mode: str) -> None:
        source = Image.new(mode, (5, 4)) if mode == "I;16" else gradient(5, 4).convert(mode)
        image = decode_image(encoded(source), "here")
        assert (image.mode, image.size) == ("RGB", (5, 4))

    def test_cmyk_jpeg(self) -> None:
        image = decode_image(encoded(gradient(16, 16).convert("CMYK"), "JPEG"), "here")
        assert (image.mode, image.size) == ("RGB", (16, 16))

    def test_sixteen_bits_keep_their_upper_eight(self) -> None:
        wide = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
        image = decode_image(encoded(Image.fromarray(wide)), "here")
        assert np.array_equal(np.asarray(image)[..., 0], (wide >> 8).astype(np.uint8))

    def test_animated_gif_gives_its_first_frame(self) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert decode_image(data, "here").getpixel((0, 0)) == (255, 0, 0)

    def test_one_pixel(self) -> None:
        assert decode_image(encoded(gradient(1, 1)), "here").size == (1, 1)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "empty"),
            (b"<!DOCTYPE html><html>404</html>", "not a picture"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
            (encoded(gradient(200, 200), "JPEG")[:2000], "damaged"),
            (encoded(gradient(200, 200))[:600], "damaged"),
        ],
        ids=["empty", "html", "postscript", "cut JPEG", "cut PNG"],
    )
    def test_damage_names_the_place_in_one_line(self, data: bytes, reason: str) -> None:
        with pytest.raises(DataError, match=f"^rows.tsv:row 3, column 4: .*{reason}") as caught:
            decode_image(data, "rows.tsv:row 3, column 4")
        assert "\n" not in str(caught.value)

    def test_truncated_pictures_are_not_tolerated_globally(self) -> None:
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    @pytest.mark.parametrize("size", [(14_000, 14_000), (100_000, 100_000)])
    def test_bombs_are_refused_without_decoding(self, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
        with warnings.catch_warnings(record=True) as seen, pytest.raises(DataError, match="here: .*pixels"):
            decode_image(bomb(*size), "here")
        assert not seen

    def test_own_limits_hold(self) -> None:
        data = encoded(gradient(10, 10))
        with pytest.raises(DataError, match="10 x 10 pixels, allowed are 99"):
            decode_image(data, "here", ImageLimits(max_pixels=99))
        with pytest.raises(DataError, match=r"bytes, allowed are 20"):
            decode_image(data, "here", ImageLimits(max_bytes=20))

    def test_warning_filters_and_pillow_limits_stay_as_they_were(self) -> None:
        filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
        with pytest.raises(DataError):
            decode_image(bomb(14_000, 14_000), "here")
        assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == (filters, limit)

    @pytest.mark.filterwarnings("ignore:.*:UserWarning")
    @settings(max_examples=200, deadline=None)
    @given(form=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]), seed=st.integers(0, 10**6))
    def test_garbled_bytes_raise_nothing_else(self, form: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        data = np.frombuffer(encoded(gradient(24, 16), form), np.uint8).copy()
        places = rng.integers(len(data), size=8)
        data[places] = rng.integers(256, size=8)
        try:
            assert decode_image(data.tobytes(), "here", ImageLimits(max_pixels=10**6)).mode == "RGB"
        except DataError as error:
            assert str(error).startswith("here: ")


class TestCells:
    # Encodes to base64 with both letters that differ between the alphabets.
    data = encoded(gradient(64, 48))

    @pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, base64.b64encode])
    @pytest.mark.parametrize("kind", [bytes, bytes.decode])
    def test_both_alphabets_as_text_or_bytes(
        self, encode: Callable[[bytes], bytes], kind: Callable[[bytes], str | bytes]
    ) -> None:
        assert {b"-", b"_"} & {bytes([c]) for c in base64.urlsafe_b64encode(self.data)}
        image = read_cell_image(kind(encode(self.data)), "here")
        assert np.array_equal(np.asarray(image), np.asarray(gradient(64, 48)))

    @pytest.mark.parametrize("cell", ["abc", "", "<html>not found</html>", "bild-ä", b"\xff\xfe", "a" * 64])
    def test_what_is_no_picture_is_refused(self, cell: str | bytes) -> None:
        with pytest.raises(DataError, match="^t.tsv:row 2, column 4: "):
            read_cell_image(cell, "t.tsv:row 2, column 4")

    def test_size_is_checked_before_base64_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("binascii.a2b_base64", lambda _: pytest.fail("decoded"))
        with pytest.raises(DataError, match="larger than the allowed 30 bytes"):
            read_cell_image(base64.b64encode(bytes(60)), "here", limits=ImageLimits(max_bytes=30))


class TestPaths:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        folder = tmp_path / "pictures"
        (folder / "a").mkdir(parents=True)
        gradient(8, 6).save(folder / "a" / "ok.png")
        gradient(8, 6).save(tmp_path / "secret.png")
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        return folder

    def test_path_below_the_folder(self, pictures: Path) -> None:
        assert read_cell_image("a/ok.png", "here", pictures, from_path=True).size == (8, 6)

    @pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "link.png"])
    def test_paths_that_leave_the_folder_are_refused(self, pictures: Path, name: str) -> None:
        with pytest.raises(DataError, match="^here: .*leaves the folder"):
            read_cell_image(name, "here", pictures, from_path=True)

    @pytest.mark.parametrize("name", ["file:///etc/passwd", "none.png", "a", "", "nul\0byte", "x" * 5000])
    def test_what_is_no_file_is_refused(self, pictures: Path, name: str) -> None:
        with pytest.raises(DataError, match="^here: "):
            read_cell_image(name, "here", pictures, from_path=True)

    def test_damaged_file_is_named_beside_the_row(self, pictures: Path) -> None:
        (pictures / "bad.jpg").write_bytes(b"<html>")
        with pytest.raises(DataError, match=r"^here \(.*bad.jpg\): not a picture"):
            read_cell_image("bad.jpg", "here", pictures, from_path=True)

    def test_large_files_are_not_read(self, pictures: Path) -> None:
        with pytest.raises(DataError, match="larger than the allowed 9 bytes"):
            read_cell_image("a/ok.png", "here", pictures, from_path=True, limits=ImageLimits(max_bytes=9))

    def test_folder_must_be_given(self) -> None:
        with pytest.raises(ConfigError, match="--image-dir"):
            read_cell_image("a.jpg", "here", None, from_path=True)


class TestKinds:
    @pytest.mark.parametrize(
        ("cell", "kind"),
        [
            ("", "empty cell"),
            ("abc", "not base64"),
            (base64.b64encode(b"<html>"), "not a picture"),
            (base64.b64encode(encoded(gradient(200, 200))[:600]), "damaged picture"),
            (base64.b64encode(bomb(100_000, 100_000)), "oversized picture"),
        ],
    )
    def test_errors_can_be_counted_by_kind(self, cell: str | bytes, kind: str) -> None:
        with pytest.raises(MediumError) as caught:
            read_cell_image(cell, "here")
        assert caught.value.kind == kind

    def test_kind_and_message_survive_pickling(self) -> None:
        error = pickle.loads(pickle.dumps(MediumError("here: gone", kind="missing file")))
        assert (str(error), error.kind) == ("here: gone", "missing file")
