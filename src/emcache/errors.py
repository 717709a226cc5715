"""Every error that a user's mistake can cause.

::

    EmcacheError                 one sentence: what was found, what was expected, what to do
    ├── UsageError               an option or argument that cannot be right
    ├── WorkspaceError           no workspace, or one whose emcache.toml cannot be read
    ├── DatasetError             an unknown dataset, a root that is not there, an empty listing
    │   ├── PairingError         an image without a mask, a mask without an image, an ambiguous name
    │   └── AuditError           masks that do not belong to their slices, and what else fails
    ├── ImageError               an image or mask that cannot be read, or has the wrong size or kind
    ├── BackboneError            an unknown backbone
    │   ├── WeightsError         weights that are not there or do not fit
    │   └── AdapterError         an adapter that does not fit its backbone
    ├── StoreError               a feature set that is damaged, incomplete or not to be found
    │   └── FormatVersionError   written by a newer emcache
    ├── TrainingError            a training that cannot go on
    ├── ClusterError             workers that are not there, or not what they should be
    ├── StudyError               a study file that cannot be read or carried out
    ├── RecordError              a record that is damaged or not to be found
    └── WarehouseError           a database or query that DuckDB refuses

The command line prints the sentence and exits with :attr:`EmcacheError.exit_code`. Anything that
is not an ``EmcacheError`` is our mistake and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_LONGEST = 4000


def suggest(text: str, known: Iterable[str], prefix: str = "") -> str:
    """``did you mean X? `` with the closest of the known names, or nothing where none is close."""
    close = difflib.get_close_matches(text, list(known), n=1)
    return f"did you mean {prefix}{close[0]}? " if close else ""


class EmcacheError(Exception):
    """Base of every error that a user can fix.

    Args:
        message: One sentence: what was found, what was expected, what to do.
        subject: The object at fault (a path, a name, a slice), for programs that catch the error.
    """

    exit_code = 2

    def __init__(self, message: str, *, subject: Any = None) -> None:
        if len(message) > _LONGEST:
            # A damaged file may hold a value of any length, and what to do stands at the end.
            message = f"{message[: _LONGEST // 2]} [...] {message[-_LONGEST // 2 :]}"
        super().__init__(message)
        self.subject = subject


class UsageError(EmcacheError):
    """An option or argument that cannot be right."""


class WorkspaceError(EmcacheError):
    """There is no workspace, or its ``emcache.toml`` cannot be read."""


class DatasetError(EmcacheError):
    """An unknown dataset, a root that is not there, or nothing found in it."""


class PairingError(DatasetError):
    """Images and masks that the declared rule cannot pair."""


class AuditError(DatasetError):
    """Data that failed its audit."""


class ImageError(EmcacheError):
    """An image or mask that cannot be read, or has the wrong size or kind."""


class BackboneError(EmcacheError):
    """An unknown backbone."""


class WeightsError(BackboneError):
    """Weights that are not there, cannot be reached, or do not fit the backbone."""


class AdapterError(BackboneError):
    """An adapter that cannot be put on its backbone."""


class StoreError(EmcacheError):
    """A feature set that is damaged, incomplete or not to be found."""


class FormatVersionError(StoreError):
    """A feature set or record written by a newer emcache."""


class TrainingError(EmcacheError):
    """A training that cannot go on."""


class ClusterError(EmcacheError):
    """Workers that are not there, or that compute with something else."""


class StudyError(EmcacheError):
    """A study file that cannot be read, or asks for what cannot be."""


class RecordError(EmcacheError):
    """A record that is damaged or not to be found."""


class WarehouseError(EmcacheError):
    """A database or query that DuckDB refuses."""
