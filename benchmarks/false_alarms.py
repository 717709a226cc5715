"""How often slices of a stack are called outside of the same stack: blocks held out in turn.

    python benchmarks/false_alarms.py WORKSPACE DATASET[:SPLIT]...

Reads the feature sets that the workspace's cache holds, and prints a row for each selection.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from emcache.cache.find import FeatureRequest
from emcache.cache.plan import plan_extraction
from emcache.data.dataset import Selection
from emcache.gap.sources import features_of, options_of_cache
from emcache.progress import Quiet
from emcache.storage.workspace import find_workspace
from emcache.training.reference import compare, take_reference


def main(workspace: str, *selections: str) -> None:
    """Print the share of false alarms with one slice held out, and with four beside each other."""
    place = find_workspace(Path(workspace))
    print("selection,slices,held_out,alarms")
    for selection in map(Selection.parse, selections):
        options = options_of_cache(place, [selection], FeatureRequest(), "cpu", Quiet())
        features = features_of(plan_extraction(place, selection, options, Quiet()), Quiet())
        slices = [features.grid(position) for position in range(len(features))]
        for size in (1, 4):
            alarms = 0
            for held in np.split(np.arange(len(slices)), np.arange(size, len(slices), size)):
                rest = [place for place in range(len(slices)) if place not in held]
                reference = take_reference(str(selection), slices.__getitem__, rest)
                assert reference is not None  # noqa: S101 - stacks are long
                alarms += sum(compare([reference], slices[place]).outside for place in held)
            print(f"{selection},{len(slices)},{size},{alarms}")


if __name__ == "__main__":
    main(*sys.argv[1:])
