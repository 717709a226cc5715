"""The completion manifest: the list of a folder's files with their checksums.

Zarr detects flipped and shortened bytes by a CRC32C, but reads a missing shard as zeros. The
manifest, written last, makes the difference between *absent* and *zero*: a folder is complete when
its manifest is there, and intact when every file has the size and the SHA-256 that it states.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emcache.errors import FormatVersionError, StoreError
from emcache.storage import atomic
from emcache.storage.hashing import FileFacts, file_sha256, is_inside, json_sha256
from emcache.validation import Content

MANIFEST_NAME = "manifest.json"

_DESCRIPTION = "zarr.json"


class _Manifest(Content):
    sha256: str
    format: int
    files: dict[str, FileFacts]


def write_manifest(
    folder: Path,
    content: Mapping[str, Any],
    known: Mapping[str, str],
    leave_out: str | None = None,
) -> None:
    """Complete a folder: hash its files and write the manifest.

    Args:
        folder: What to describe, all files below it.
        content: JSON values to state beside the files.
        known: SHA-256 of files hashed already, by their path in the folder.
        leave_out: A folder whose files are not part of what is complete.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST_NAME and name.partition("/")[0] != leave_out:
            atomic.sync_file(path)
            files[name] = {
                "bytes": path.stat().st_size,
                "sha256": known.get(name) or file_sha256(path),
            }
    full = {**content, "files": files}
    atomic.write_json(folder / MANIFEST_NAME, {**full, "sha256": json_sha256(full)})


def read_manifest(folder: Path, newest_format: int) -> dict[str, Any]:
    """Read a manifest and check that it is whole and that each file has its size.

    Checksums are compared of Zarr's own descriptions alone, which are small and have none of their
    own. Sizes cost microseconds, and a missing or emptied shard is what Zarr would not notice.

    Raises:
        StoreError: Missing, damaged, or a file is missing, of another size, or no longer describes
            its array.
        FormatVersionError: Written by a newer emcache.
    """
    content = load_manifest(folder, newest_format)
    for name, facts in content["files"].items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise _damaged(folder, f"{name} is missing") from None
        if size != facts["bytes"]:
            raise _damaged(folder, f"{name} has {size} bytes instead of {facts['bytes']}")
        if name.rpartition("/")[2] == _DESCRIPTION and facts["sha256"] != file_sha256(
            folder / name
        ):
            raise _damaged(folder, f"the checksum of {name} does not match")
    return content


def load_manifest(folder: Path, newest_format: int) -> dict[str, Any]:
    """Read a manifest and check that it is whole; the files are not looked at.

    Raises:
        StoreError: Missing or damaged.
        FormatVersionError: Written by a newer emcache.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_bytes())
        found = _Manifest.model_validate(content)
        computed = json_sha256({key: content[key] for key in content if key != "sha256"})
    except FileNotFoundError:
        raise StoreError(
            f"{folder} holds no {MANIFEST_NAME}: it is not complete; remove that folder and run "
            f"the command again.",
            subject=folder,
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST_NAME} cannot be read ({error})") from error
    for name in found.files:
        if not is_inside(name):
            raise _damaged(folder, f"{MANIFEST_NAME} lists a file {name!r:.200} outside its folder")
    # First: a flipped byte can make any number of the format.
    if found.sha256 != computed:
        raise _damaged(folder, f"the checksum of {MANIFEST_NAME} does not match")
    if found.format > newest_format:
        raise FormatVersionError(
            f"{folder} has format {found.format}, this emcache reads up to {newest_format}; "
            f"upgrade emcache, or extract again.",
            subject=folder,
        )
    return dict(content)


def _damaged(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"{folder} is damaged: {why}; run `emcache cache verify --repair`, which computes what is "
        f"missing again.",
        subject=folder,
    )
