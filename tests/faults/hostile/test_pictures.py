"""Hostile pictures: PNG, JPEG, TIFF and the headers of OME."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from hostile import (
    PIXELS,
    STACK,
    Field,
    attempt,
    cases,
    damaged,
    look,
    look_at_volume,
)
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image


def png_fields(data: bytes) -> list[Field]:
    fields: list[Field] = [(16, ">I"), (20, ">I"), *((place, ">B") for place in range(24, 29))]
    place = 8
    while place + 8 <= len(data):
        fields.append((place, ">I"))
        place += 12 + struct.unpack_from(">I", data, place)[0]
    return fields


def jpeg_fields(data: bytes) -> list[Field]:
    fields: list[Field] = []
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        fields.append((place + 2, ">H"))
        if marker in (0xC0, 0xC1, 0xC2):
            fields += [(place + 4, ">B"), (place + 5, ">H"), (place + 7, ">H"), (place + 9, ">B")]
        if marker == 0xDA:
            break
        place += 2 + length
    return fields


def tiff_fields(data: bytes) -> list[Field]:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    wide, narrow, size, head = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 2)
    start = 8 if big else 4
    fields: list[Field] = [(2, f"{order}H"), (start, order + wide)]
    offset = struct.unpack_from(order + wide, data, start)[0]
    while offset and len(fields) < 400:
        count = struct.unpack_from(order + narrow, data, offset)[0]
        fields.append((offset, order + narrow))
        for entry in range(count):
            place = offset + head + entry * size
            step = 8 if big else 4
            fields += [(place, f"{order}H"), (place + 2, f"{order}H"), (place + 4, order + wide)]
            fields.append((place + 4 + step, order + wide))
        after = offset + head + count * size
        fields.append((after, order + wide))
        offset = struct.unpack_from(order + wide, data, after)[0]
    return fields


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold now."""
    done = bytearray(data)
    place = 8
    while place + 12 <= len(done):
        length = struct.unpack_from(">I", done, place)[0]
        end = place + 8 + length
        if end + 4 > len(done):
            break
        struct.pack_into(">I", done, end, zlib.crc32(done[place + 4 : end]))
        place = end + 4
    return bytes(done)


def saved(pixels: Image.Image, form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, form, **how)
    return buffer.getvalue()


def png_bases() -> dict[str, bytes]:
    grey = Image.fromarray(PIXELS)
    palette = Image.fromarray((PIXELS > 99).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    return {
        "grey": saved(grey, "PNG"),
        "bit": saved(grey.convert("1"), "PNG"),
        "palette": saved(palette, "PNG"),
        "alpha": saved(grey.convert("LA"), "PNG"),
        "colour": saved(grey.convert("RGB"), "PNG"),
        "deep": saved(Image.fromarray(PIXELS.astype(np.uint16) * 257), "PNG"),
        "animated": saved(grey, "PNG", save_all=True, append_images=[grey.rotate(90)]),
    }


def jpeg_bases() -> dict[str, bytes]:
    grey = Image.fromarray(PIXELS)
    return {
        "grey": saved(grey, "JPEG"),
        "progressive": saved(grey, "JPEG", progressive=True),
        "colour": saved(grey.convert("RGB"), "JPEG"),
        "exif": saved(grey, "JPEG", exif=grey.getexif().tobytes() + b"\0" * 8),
    }


def tiff_bases() -> dict[str, bytes]:
    def written(data: np.ndarray, **how: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, data, **{"photometric": "minisblack", **how})
        return buffer.getvalue()

    ome = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeY": 4.0, "PhysicalSizeZ": 40.0}
    return {
        "plain": written(PIXELS),
        "pages": written(STACK, metadata=None),
        "lzw": written(STACK, compression="lzw", predictor=True, metadata=None),
        "deflate": written(PIXELS, compression="zlib", tile=(16, 16)),
        "zstd": written(PIXELS.astype(np.uint16), compression="zstd"),
        "lzma": written(PIXELS.astype(np.float32), compression="lzma"),
        "packbits": written(PIXELS, compression="packbits"),
        "jpeg": written(PIXELS, compression="jpeg"),
        "big": written(STACK, bigtiff=True, byteorder=">"),
        "ome": written(STACK, ome=True, metadata=ome),
        "imagej": written(STACK, imagej=True, metadata={"axes": "ZYX", "unit": "um"}),
        "palette": saved(Image.fromarray(PIXELS, mode="P"), "TIFF"),
        "bit": saved(Image.fromarray(PIXELS).convert("1"), "TIFF", compression="group4"),
        "white": written(PIXELS, photometric="miniswhite"),
    }


def without_palette() -> bytes:
    """A PNG that says it has a palette, and has none."""
    whole = png_bases()["bit"]
    return whole[:25] + b"\3" + whole[26:]


@cases(260, 1500)
@given(found=damaged(png_bases(), png_fields), sound=st.booleans())
@example(found=("palette", without_palette()), sound=True)
def test_png(place: Path, found: tuple[str, bytes], sound: bool) -> None:
    path = place / f"{found[0]}.png"
    path.write_bytes(with_checksums(found[1]) if sound else found[1])
    attempt("png", *look(path))


@cases(80, 900)
@given(found=damaged(jpeg_bases(), jpeg_fields))
def test_jpeg(place: Path, found: tuple[str, bytes]) -> None:
    path = place / f"{found[0]}.jpg"
    path.write_bytes(found[1])
    attempt("jpeg", *look(path))


@cases(170, 1200)
@given(found=damaged(tiff_bases(), tiff_fields))
def test_tiff(place: Path, found: tuple[str, bytes]) -> None:
    path = place / f"{found[0]}.tif"
    path.write_bytes(found[1])
    attempt("tiff", *look_at_volume(path))


OME_XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {0}>{1}'
    "</Pixels></Image></OME>"
)


@cases(20, 100)
@given(
    attributes=st.dictionaries(
        st.sampled_from(
            ["SizeX", "SizeY", "SizeZ", "SizeC", "SizeT", "Type", "DimensionOrder"]
            + [f"PhysicalSize{axis}{unit}" for axis in "XYZ" for unit in ("", "Unit")]
        ),
        st.sampled_from(
            ["", "0", "-1", "3", "20", "24", "1e999", "nan", "9" * 30, "uint8", "XYZCT"]
        ),
        max_size=12,
    ),
    inner=st.sampled_from(
        ["", "<TiffData/>", '<TiffData IFD="9"/>', "<a>" * 3000, "&x;", "<Channel/>" * 3]
    ),
    whole=st.sampled_from([OME_XML, "<OME", "<OME></OME>", "<OME><Image/></OME>", OME_XML * 2]),
)
def test_ome_headers(place: Path, attributes: dict[str, str], inner: str, whole: str) -> None:
    told = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    path = place / "header.ome.tif"
    text = whole.format(told, inner) if "{" in whole else whole
    with tifffile.TiffWriter(path) as tiff:
        for plane in STACK:
            tiff.write(plane, photometric="minisblack", description=text.encode(), metadata=None)
            text = ""
    attempt("tiff", *look_at_volume(path))
