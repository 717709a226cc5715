"""Weights: where they come from, how they are named, and the hash of their bytes.

``--weights`` is ``pretrained`` or ``hf:REPOSITORY`` (from the hub), ``random:SEED`` (untrained, to
try things without a network), a short name of the workspace, or a file or folder. Whatever the
source, tokens are keyed by the bytes of the weights that made them.
"""

from emcache.models.weights.files import Weights, read_weights_file, state_sha256
from emcache.models.weights.finding import are_at_hand, find_weights, find_workspace_weights
from emcache.models.weights.short_names import (
    PRETRAINED,
    describe_untrained,
    is_named,
    is_untrained,
)

__all__ = [
    "PRETRAINED",
    "Weights",
    "are_at_hand",
    "describe_untrained",
    "find_weights",
    "find_workspace_weights",
    "is_named",
    "is_untrained",
    "read_weights_file",
    "state_sha256",
]
