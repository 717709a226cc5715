"""The one place the version is written; the wheel and ``emcache --version`` read it."""

__version__ = "0.1.0"
