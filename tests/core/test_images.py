import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emcache.errors import ImageError
from emcache.images import pixel_sha256, read_image, read_mask
from emcache.planes import Plane

SQUARE = np.zeros((6, 8), dtype=np.uint8)
SQUARE[1:4, 2:6] = 255


def save(path: Path, pixels: np.ndarray, mode: str = "L") -> Path:
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_every_kind_of_mask_gives_the_same_pixels(tmp_path: Path) -> None:
    palette = Image.fromarray((SQUARE > 0).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette.tif")
    paths = [
        save(tmp_path / "grey.png", SQUARE),
        save(tmp_path / "grey.tif", SQUARE),
        save(tmp_path / "bit.png", SQUARE, "1"),
        save(tmp_path / "bit.tif", SQUARE, "1"),
        tmp_path / "palette.png",
        tmp_path / "palette.tif",
    ]
    for path in paths:
        np.testing.assert_array_equal(read_mask(Plane(path)), SQUARE, err_msg=path.name)
    assert len({pixel_sha256(read_mask(Plane(path))) for path in paths}) == 1


def test_hash_tells_shapes_apart() -> None:
    assert pixel_sha256(SQUARE) != pixel_sha256(SQUARE.reshape(8, 6))


def test_grey_in_three_channels_is_a_slice_but_no_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "rgb.png", SQUARE, "RGB")
    np.testing.assert_array_equal(read_image(Plane(path)), SQUARE)
    with pytest.raises(ImageError, match=r"mask .* is a colour image"):
        read_mask(Plane(path))


def test_colour_is_refused(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 3), dtype=np.uint8)
    colour[..., 0] = 200
    with pytest.raises(ImageError, match="colour image"):
        read_image(Plane(save(tmp_path / "red.png", colour, "RGB")))


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    whole = save(
        tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    ).read_bytes()
    (tmp_path / "short.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "deep.tif", SQUARE.astype(np.uint16) * 257, "I;16")
    pages = [Image.fromarray(SQUARE)] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for name, reason in {
        "empty.png": "is empty",
        "text.png": "no image that can be recognised",
        "short.png": "cannot be decoded",
        "deep.tif": "has values of type uint16, and no grey_window",
        "pages.tif": "holds 2 pages",
        "gone.png": "is not there",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}.*{reason}"):
            read_image(Plane(tmp_path / name))


def test_a_palette_of_colours_is_refused(tmp_path: Path) -> None:
    picture = Image.fromarray((SQUARE > 0).astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "red.png")
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match="has a palette of colours"):
            read(Plane(tmp_path / "red.png"))


def palette_png(entries: np.ndarray, palette: bytes | None) -> bytes:
    """A PNG of colour type 3, its chunks as they are given."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    rows, columns = entries.shape
    pixels = b"".join(b"\0" + row.tobytes() for row in entries)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
            b"" if palette is None else chunk(b"PLTE", palette),
            chunk(b"IDAT", zlib.compress(pixels)),
            chunk(b"IEND", b""),
        )
    )


def test_a_pixel_without_an_entry_in_the_palette_is_refused(tmp_path: Path) -> None:
    entries = np.array([[0, 1], [2, 1]], np.uint8)
    greys = bytes([7, 7, 7, 9, 9, 9, 255, 255, 255])
    for palette, held in {None: 0, b"": 0, greys[:6]: 2, greys[:8]: 2}.items():
        (tmp_path / "short.png").write_bytes(palette_png(entries, palette))
        for read in (read_image, read_mask):
            with pytest.raises(ImageError, match=rf"{held} entries, and pixels of entry 2; expec"):
                read(Plane(tmp_path / "short.png"))
    (tmp_path / "whole.png").write_bytes(palette_png(entries, greys))
    assert read_mask(Plane(tmp_path / "whole.png")).tolist() == [[7, 9], [255, 9]]


def test_a_large_section_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "section.png"
    Image.new("L", (14_000, 14_000), 7).save(path, compress_level=1)
    assert read_image(Plane(path)).shape == (14_000, 14_000)


def test_size_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emcache.volumes.picture.MOST_PIXELS", 40)
    path = save(tmp_path / "large.png", SQUARE)
    with pytest.raises(ImageError, match=r"claims 6 x 8 pixels; expected at most 40"):
        read_image(Plane(path))
