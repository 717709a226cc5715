from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from emcache.storage.zarr_arrays import PACKED, PLAIN, ZARR_DAMAGE, WholeArray

COMPRESSORS = {PLAIN: [Crc32cCodec()], PACKED: [ZstdCodec(level=3), Crc32cCodec()]}


def write(
    folder: Path,
    codecs: tuple[str, ...] = PLAIN,
    dtype: str = "float16",
    per_shard: int | None = 4,
    order: str = "little",
) -> np.ndarray:
    """Six slices in two shards, of which the last is not full."""
    values = np.random.default_rng(0).integers(0, 100, (6, 5, 7, 3)).astype(dtype)
    array = zarr.create_array(
        folder,
        shape=values.shape,
        chunks=(1, *values.shape[1:]),
        shards=None if per_shard is None else (per_shard, *values.shape[1:]),
        dtype=values.dtype,
        filters=None,
        serializer=BytesCodec(endian=order),
        compressors=COMPRESSORS[codecs],
        config={"write_empty_chunks": True},
    )
    array[:] = values
    return values


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "int8"])
@pytest.mark.parametrize("codecs", [PLAIN, PACKED], ids=["plain", "packed"])
def test_a_slice_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codecs: tuple[str, ...], dtype: str
) -> None:
    values = write(tmp_path, codecs, dtype)
    array = WholeArray(tmp_path, codecs)
    np.testing.assert_array_equal(array[:], values)
    monkeypatch.setattr(WholeArray, "__getitem__", lambda *_: pytest.fail("zarr was asked"))
    for index, expected in enumerate(values):
        found = array.slice(index)
        assert found.dtype == expected.dtype
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected)
    for index in (-1, 6, 7):
        with pytest.raises(ValueError, match=rf"no slice {index} among 6"):
            array.slice(index)


@pytest.mark.parametrize(("per_shard", "order"), [(None, "little"), (4, "big")])
def test_what_lies_otherwise_is_read_by_zarr(
    tmp_path: Path, per_shard: int | None, order: str
) -> None:
    values = write(tmp_path, per_shard=per_shard, order=order)
    array = WholeArray(tmp_path, PLAIN)
    for index, expected in enumerate(values):
        np.testing.assert_array_equal(array.slice(index), expected)


def read_all(array: WholeArray, places: Sequence[int]) -> list[np.ndarray | None]:
    found: list[np.ndarray | None] = []
    for index in places:
        try:
            found.append(array.slice(index))
        except ZARR_DAMAGE:
            found.append(None)
    return found


@pytest.mark.parametrize("codecs", [PLAIN, PACKED], ids=["plain", "packed"])
def test_no_damaged_byte_is_read_as_a_value(tmp_path: Path, codecs: tuple[str, ...]) -> None:
    values = write(tmp_path, codecs)
    (shard,) = tmp_path.glob("c/1/*/*/*")
    array, whole = WholeArray(tmp_path, codecs), shard.read_bytes()
    places = range(4, 6)
    for place in range(len(whole)):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = read_all(array, places)
        assert any(each is None for each in found), place
        for index, each in zip(places, found, strict=True):
            assert each is None or (each == values[index]).all()
    for length in range(0, len(whole), 7):
        shard.write_bytes(whole[:length])
        assert read_all(array, places) == [None, None]
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        array.slice(4)


def test_a_slice_that_was_never_written_is_not_zeros(tmp_path: Path) -> None:
    write(tmp_path)
    group = zarr.open_array(tmp_path, mode="r+")
    group.resize((8, *group.shape[1:]))
    with pytest.raises(ValueError, match="slice 7 is not in its shard"):
        WholeArray(tmp_path, PLAIN).slice(7)
