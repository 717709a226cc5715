"""Libraries that only some formats need."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from emcache.errors import ImageError


def require(module: str, extra: str, path: Path) -> Any:
    """Import the library of an optional format.

    Raises:
        ImageError: It is not installed; the message is the line that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise ImageError(
            f"{path} needs {module}, which is not installed; install it with "
            f"`pip install 'emcache[{extra}]'`.",
            subject=path,
        ) from None
