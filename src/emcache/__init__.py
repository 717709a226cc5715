"""emcache: an embedding cache for vision foundation models on electron-microscopy slices.

The names below are the library's public face (``docs/library.md``); everything else may change
between versions. They are imported as they are asked for, so that ``import emcache`` is quick and
tokens can be read without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emcache._version import __version__
from emcache.errors import EmcacheError

if TYPE_CHECKING:
    from emcache.cache.feature_set import FeatureSet
    from emcache.library.functions import (
        evaluate,
        extract,
        measure_familiarity,
        measure_gaps,
        run_study,
        train,
    )
    from emcache.library.modules import build_head, load_backbone
    from emcache.library.runs import TrainedRun
    from emcache.library.tokens import TokenDataset
    from emcache.library.workspace import Dataset, Workspace, audit
    from emcache.training.protocol import Protocol

_HOMES = {
    "Dataset": "library.workspace",
    "FeatureSet": "cache.feature_set",
    "Protocol": "training.protocol",
    "TokenDataset": "library.tokens",
    "TrainedRun": "library.runs",
    "Workspace": "library.workspace",
    "audit": "library.workspace",
    "build_head": "library.modules",
    "evaluate": "library.functions",
    "extract": "library.functions",
    "load_backbone": "library.modules",
    "measure_familiarity": "library.functions",
    "measure_gaps": "library.functions",
    "run_study": "library.functions",
    "train": "library.functions",
}

__all__ = [
    "Dataset",
    "EmcacheError",
    "FeatureSet",
    "Protocol",
    "TokenDataset",
    "TrainedRun",
    "Workspace",
    "__version__",
    "audit",
    "build_head",
    "evaluate",
    "extract",
    "load_backbone",
    "measure_familiarity",
    "measure_gaps",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emcache' has no attribute {name!r}")
    return getattr(import_module(f"emcache.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
