"""The SQL and CSV files that travel with the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A text file of the package."""

    name: str
    """Folder and file name: ``views/03_leaderboard.sql``."""
    text: str
    """Its content."""

    @property
    def stem(self) -> str:
        """File name without folder and ending."""
        return self.name.rpartition("/")[2].rpartition(".")[0]

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the content."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def packaged_files(folder: str) -> tuple[PackagedFile, ...]:
    """All files of one folder of the package, in order of their names; ``.`` is the package."""
    return tuple(
        PackagedFile(f"{folder}/{entry.name}".removeprefix("./"), entry.read_text(encoding="utf-8"))
        for entry in sorted(files("emcache_warehouse").joinpath(folder).iterdir(), key=_name)
        if entry.name.endswith((".sql", ".csv", ".j2"))
    )


def packaged_text(name: str) -> str:
    """Content of one file: ``packaged_text("tables/runs.sql")``."""
    folder = name.rpartition("/")[0] or "."
    return next(file.text for file in packaged_files(folder) if file.name == name)


def _name(entry: object) -> str:
    return str(getattr(entry, "name", entry))
