"""Handing an Arrow stream from DuckDB to polars.

This module knows neither of the two: polars remembers the class of every object it is shown, and
were that one of DuckDB's, the interpreter could not let go of it at its end and would complain on
standard error.
"""

from __future__ import annotations


class ArrowStream:
    """An object that offers nothing but the Arrow stream it was given.

    Args:
        capsule: What ``__arrow_c_stream__`` of another object returned.
    """

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The stream; it can be taken once."""
        del requested_schema  # a producer may ignore it
        return self._capsule
