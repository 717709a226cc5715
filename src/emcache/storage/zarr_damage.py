"""What zarr and its codecs raise where bytes or descriptions are not what they should be."""

from __future__ import annotations

ZARR_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""No class of errors is common to them. Too little memory is no damage, and so not among them."""
