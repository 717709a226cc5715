"""What a TOML file of the user's may hold, so that whatever reads its values need not ask.

TOML promises whole numbers of 64 bits. Parsers give any number, and Python fails where one of
hundreds of digits becomes a float, or one of thousands is written out.
"""

from __future__ import annotations

import re
from typing import Any

_MOST_BITS = 900

# Parsers take the square of a dotted name's length: one of 40 kB would take minutes.
_LONG_NAME = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){64}")


def find_long_name(text: str) -> str | None:
    """What in a TOML file would take too long to parse, in words; None where nothing does."""
    found = _LONG_NAME.search(text)
    return None if found is None else f"a dotted name of many parts ({found[0][:40]}...)"


def find_oddity(content: Any) -> str | None:
    """What in the content of a TOML file cannot be used, in words; None where all can."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return "a whole number of hundreds of digits"
        elif isinstance(value, str) and "\0" in value:
            return "a text with a NUL character"
    return None
