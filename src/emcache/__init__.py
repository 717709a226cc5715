"""emcache: an embedding cache for vision foundation models on electron-microscopy slices."""

from emcache._version import __version__
from emcache.errors import EmcacheError

__all__ = ["EmcacheError", "__version__"]
