"""Planes: which picture of which file a slice or a mask is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

AXES = ("z", "y", "x")
"""Axes of a volume as arrays hold them: sections, rows, columns."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One picture: a file by itself, or one plane of a volume."""

    path: Path
    """Absolute path of the file, or of a Zarr folder."""
    inner: str = ""
    """Path of the array within a container (HDF5, Zarr); empty elsewhere."""
    axis: int = 0
    """Axis that the volume is sliced along, an index into :data:`AXES`."""
    index: int | None = None
    """Position along that axis; None for the only picture of a file."""

    @property
    def volume(self) -> tuple[Path, str, int]:
        """What it shares with the other planes of its volume."""
        return self.path, self.inner, self.axis

    @property
    def stack(self) -> tuple[Path, ...] | tuple[Path, str, int]:
        """What it shares with the planes before and behind it: its folder, or its volume."""
        return (self.path.parent,) if self.index is None else self.volume

    def below(self, root: Path) -> str:
        """Its name relative to a dataset's root: ``raw/00.tif``, or ``raw.h5:/volume#z=3``."""
        return self._named(self.path.relative_to(root).as_posix())

    def __str__(self) -> str:
        return self._named(str(self.path))

    def _named(self, path: str) -> str:
        inner = f":/{self.inner}" if self.inner else ""
        place = "" if self.index is None else f"#{AXES[self.axis]}={self.index}"
        return f"{path}{inner}{place}"
