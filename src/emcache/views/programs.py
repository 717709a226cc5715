"""The programs of the pages, as the build bundled them."""

from __future__ import annotations

from pathlib import Path

from emcache.errors import EmcacheError

_FOLDER = Path(__file__).parent / "static"


def read_static(name: str) -> str:
    """A file of the bundled programs.

    Raises:
        EmcacheError: This installation lacks it.
    """
    try:
        return (_FOLDER / name).read_text(encoding="ascii")
    except FileNotFoundError:
        raise EmcacheError(
            f"the explorer's {name} is not part of this installation; install the released wheel, "
            f"or run `make explorer` in the checkout."
        ) from None
