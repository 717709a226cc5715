"""The words that stand for weights, on the command line and in every output.

==========================  ==================================================================
``pretrained``              What the backbone's publisher has on the hub.
``random:SEED``             Untrained.
``hf:REPOSITORY@COMMIT``    Of any repository of the hub, with the start of the commit's hash.
``NAME``                    A short name in ``emcache.toml``.
``file:NAME@HASH``          A file or folder, with the start of the hash of its bytes.
==========================  ==================================================================
"""

from __future__ import annotations

import re

PRETRAINED = "pretrained"
HUB = "hf:"
_RANDOM = re.compile(r"random:([0-9]{1,20})")
_FILE_LABEL = re.compile(r"file:.*@[0-9a-f]{8}", re.DOTALL)
_SHORT = 8
LARGEST_SEED = 2**31 - 1


def is_untrained(label: str) -> bool:
    """Whether a weights label stands for random weights."""
    return label.startswith("random:")


def is_named(text: str) -> bool:
    """Whether weights are named by a word that means the same in every workspace."""
    return text == PRETRAINED or is_untrained(text) or text.startswith(HUB)


def is_file_label(text: str) -> bool:
    """Whether a text is what an output calls a file: its name and the start of its hash."""
    return _FILE_LABEL.fullmatch(text) is not None


def hash_start(sha256: str) -> str:
    """What labels show of a hash."""
    return sha256[:_SHORT]


def file_label(name: str, sha256: str) -> str:
    """What outputs call a file that has no short name."""
    return f"file:{name}@{hash_start(sha256)}"


def hub_label(repository: str, commit: str) -> str:
    """What outputs call a repository of the hub; a branch moves, and a commit does not."""
    return f"{HUB}{repository}@{hash_start(commit)}"


def random_seed(text: str) -> int | None:
    """The seed of ``random:SEED``; None where a text is something else, or the seed too large."""
    match = _RANDOM.fullmatch(text)
    return seed if match and (seed := int(match[1])) <= LARGEST_SEED else None


def describe_untrained(weights: str) -> str:
    """The sentence that every output of random weights carries."""
    return f"weights {weights} are untrained: scores say what the head learned, not the backbone."
