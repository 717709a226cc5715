import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

import emcache.data.volumes.picture
from emcache.data.images import pixel_sha256, read_image, read_mask
from emcache.data.plane import Plane
from emcache.data.volumes import picture
from emcache.errors import ImageError

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


# In blocks of 8 x 8, so that JPEG keeps them to the last bit.
BLOCKS = np.kron(np.array([[0, 255, 0], [255, 255, 0]], dtype=np.uint8), np.ones((8, 8), np.uint8))
SAVERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "png": lambda path, pixels: Image.fromarray(pixels).save(path),
    "jpg": lambda path, pixels: Image.fromarray(pixels).save(path, quality=100, subsampling=0),
    "tif": lambda path, pixels: Image.fromarray(pixels).save(path),
    "deflate.tif": lambda path, pixels: Image.fromarray(pixels).save(
        path, compression="tiff_deflate"
    ),
    "planes.tif": lambda path, pixels: tifffile.imwrite(
        path,
        np.moveaxis(pixels, -1, 0),
        photometric="rgb" if pixels.shape[-1] > 2 else "minisblack",
        planarconfig="separate",
        extrasamples=["unassalpha"] if pixels.shape[-1] in (2, 4) else [],
    ),
}
# Format and channels, the last of 2 or 4 being alpha.
COLOURS = [(kind, n) for kind in SAVERS for n in (2, 3, 4) if kind != "jpg" or n == 3]


def coloured(path: Path, kind: str, colours: np.ndarray, alpha: np.ndarray) -> Path:
    """Save colours (row, column, 1 or 3), with alpha (row, column) unless it is JPEG."""
    path = path / f"mask.{kind}"
    SAVERS[kind](path, colours if alpha is None else np.dstack([colours, alpha]))
    return path


@pytest.mark.parametrize(("kind", "channels"), COLOURS)
@pytest.mark.parametrize("opacity", [255, 0, 7])
def test_colours_that_agree_are_one_grey(
    tmp_path: Path, kind: str, channels: int, opacity: int
) -> None:
    colours = np.repeat(BLOCKS[..., None], 1 if channels == 2 else 3, axis=-1)
    alpha = None if channels == 3 else np.full_like(BLOCKS, opacity)
    plane = Plane(coloured(tmp_path, kind, colours, alpha))
    for read in (read_image, read_mask):
        found = read(plane)
        np.testing.assert_array_equal(found, BLOCKS)
        assert found.flags.c_contiguous
    grey = save(tmp_path / "grey.png", BLOCKS)
    assert pixel_sha256(read_mask(plane)) == pixel_sha256(read_mask(Plane(grey)))


@pytest.mark.parametrize(("kind", "channels"), [(k, n) for k, n in COLOURS if n != 2])
def test_channels_that_differ_are_named(tmp_path: Path, kind: str, channels: int) -> None:
    colours = np.repeat(BLOCKS[..., None], 3, axis=-1)
    colours[8:, 16:, 2] = 254 if kind != "jpg" else 200
    alpha = None if channels == 3 else np.full_like(BLOCKS, 255)
    plane = Plane(coloured(tmp_path, kind, colours, alpha))
    with pytest.raises(
        ImageError,
        match=rf"^mask \S*mask\.{kind} is a colour image: its channels differ in 64 of 384 pixels, "
        r"first in row 8, column 16 \(\d+, \d+, \d+\); expected .*: save the label as 8-bit grey",
    ) as caught:
        read_mask(plane)
    assert kind == "jpg" or "(0, 0, 254)" in str(caught.value)
    with pytest.raises(ImageError, match=r"is a colour image: .*row 8, column 16 .*convert it to"):
        read_image(plane)


@pytest.mark.parametrize(("kind", "channels"), [(k, n) for k, n in COLOURS if n != 3])
def test_an_alpha_that_varies_is_named(tmp_path: Path, kind: str, channels: int) -> None:
    colours = np.repeat(BLOCKS[..., None], channels - 1, axis=-1)
    alpha = np.full_like(BLOCKS, 255)
    # The first pixel is among the unusual ones, and yet the others are not called so.
    alpha[0, 0] = alpha[9, 4] = 10
    plane = Plane(coloured(tmp_path, kind, colours, alpha))
    for read, name in ((read_mask, "mask "), (read_image, "")):
        with pytest.raises(
            ImageError,
            match=rf"^the alpha of {name}/\S* varies: it is 10 in row 0, column 0, and 255 in most "
            r"pixels \(2 of 384 pixels differ from that\); expected",
        ):
            read(plane)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_value_that_counts_as_transparent_is_alpha(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        picture = Image.fromarray((BLOCKS > 0).astype(np.uint8), mode="P")
        picture.putpalette([0, 0, 0, 255, 255, 255])
    elif mode == "I;16":
        picture = Image.fromarray(BLOCKS.astype(np.uint16))
    else:
        picture = Image.fromarray(BLOCKS).convert(mode)
    white = {"1": 1, "P": 1, "RGB": (255,) * 3}.get(mode, 255)
    picture.save(tmp_path / "some.png", transparency=white)
    with pytest.raises(ImageError, match=r"the alpha of mask .* varies: it is \d+ in row 0"):
        read_mask(Plane(tmp_path / "some.png"))
    if mode in ("L", "RGB", "I;16"):
        picture.save(tmp_path / "none.png", transparency=(3,) * 3 if mode == "RGB" else 3)
        np.testing.assert_array_equal(read_mask(Plane(tmp_path / "none.png")), BLOCKS)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_are_not_cut_to_8(tmp_path: Path, channels: int) -> None:
    deep = np.full((6, 8, channels), 5, dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    for read in (read_mask, read_image):
        with pytest.raises(ImageError, match=r"deep\.png has 16 bits in each of several channels"):
            read(Plane(tmp_path / "deep.png"))
    # tifffile reads all of them.
    how = "minisblack" if channels == 2 else "rgb"
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric=how, planarconfig="contig")
    np.testing.assert_array_equal(read_mask(Plane(tmp_path / "deep.tif")), deep[..., 0])


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
        "text.png": "not an image that can be recognised",
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
    monkeypatch.setattr(emcache.data.volumes.picture, "MOST_PIXELS", 40)
    path = save(tmp_path / "large.png", SQUARE)
    with pytest.raises(ImageError, match=r"claims 6 x 8 pixels; expected at most 40"):
        read_image(Plane(path))


# PNG that is decoded at once


def with_pillow(path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray | str:
    with monkeypatch.context() as patch:
        patch.setattr(picture.Picture, "_decoded_at_once", lambda *_: None)
        return pixels_or_error(path)


def pixels_or_error(path: Path) -> np.ndarray | str:
    try:
        return picture.Picture(path).read(0, 0)
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize(
    ("mode", "transparent", "at_once"),
    [
        *((mode, False, True) for mode in ("L", "RGB", "RGBA")),
        *((mode, False, False) for mode in ("LA", "P", "1", "I;16")),
        *((mode, True, False) for mode in ("L", "RGB", "P", "1", "I;16")),
    ],
)
def test_every_png_is_what_pillow_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, transparent: bool, at_once: bool
) -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, (40, 50)).astype(np.uint8)
    image = Image.fromarray(values.astype(np.uint16) * 200 if mode == "I;16" else values)
    options = {"transparency": (7, 7, 7) if mode == "RGB" else 7} if transparent else {}
    path = tmp_path / "slice.png"
    (image if mode == "I;16" else image.convert(mode)).save(path, **options)
    np.testing.assert_array_equal(pixels_or_error(path), with_pillow(path, monkeypatch))
    assert picture.Picture(path)._is_plain is at_once


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_damaged_png_is_to_both_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, (40, 50)).astype(np.uint8)
    path = tmp_path / "slice.png"
    Image.fromarray(values).convert(mode).save(path)
    whole = path.read_bytes()
    outcomes = set()
    for place in range(8, len(whole), 37):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        for damaged in (whole[:place], bytes(flipped)):
            path.write_bytes(damaged)
            ours, pillows = pixels_or_error(path), with_pillow(path, monkeypatch)
            assert type(ours) is type(pillows)
            np.testing.assert_array_equal(ours, pillows)
            outcomes.add(type(ours))
    assert str in outcomes


def test_a_picture_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "slice.png"
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(path)
    assert read_image(Plane(path)).shape == (20, 30)
    # The head that was kept says L; the file is RGB of another size now.
    other = Image.fromarray(np.full((31, 21), 9, np.uint8)).convert("RGB")
    other.save(tmp_path / "other.png")
    (tmp_path / "other.png").replace(path)
    np.testing.assert_array_equal(read_image(Plane(path)), np.full((31, 21), 9, np.uint8))
