"""Training steps under a limit of memory: ``python -m emcache_bench.memory_worker``.

Arguments: residency, folder of the feature set, key of its labels, bytes of memory that the process
may have beside what its libraries take (0: no limit), and a number of rounds. For every request it
makes some steps on slices from all over the feature set, others in each round, and answers with
their seconds and losses.
"""

from __future__ import annotations

import re
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from emcache.cache.feature_set import FeatureSet
from emcache.cache.labels import LabelSet
from emcache.freed import kept_memory
from emcache.models.arithmetic import pick_precision
from emcache.models.heads import build_head
from emcache.models.layouts import pick_layout
from emcache.training.batches import Batch, LabelledFeatures, Residency, TokenReader, open_examples
from emcache.training.protocol import Protocol
from emcache.training.sampling import chunks
from emcache.training.trainer import Trainer
from emcache_bench.timing import seconds_of
from emcache_bench.workers import answer_requests

_STEPS = 6


def limit_own_memory(more: int) -> None:
    """Let this process have so many bytes of its own more than it has now; Linux counts them.

    Files that are read do not count: the system keeps them where there is room.
    """
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None  # noqa: S101 - Linux always says it
    bound = int(found[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def main() -> None:
    """Answer requests until there are no more."""
    residency, folder, key, limit, rounds = sys.argv[1:]
    device = torch.device("cpu")
    feature_set = FeatureSet.open(Path(folder))
    labels = LabelSet(
        feature_set.folder / "labels" / key,
        key,
        feature_set.slices,
        feature_set.description["patch"],
    )
    protocol = Protocol()
    count, wanted = len(feature_set.slices), _STEPS * protocol.batch * int(rounds)
    positions = list(range(0, count, max(1, count // wanted)))[:wanted]
    precision = pick_precision("auto", device)
    layout = pick_layout(device, precision)
    # The first step and the first reading load libraries and start their threads, which have stacks
    # of their own; a reader whose thread cannot start waits for it for ever.
    small = Trainer(build_head("deconv", 8, 0, layout=layout), protocol, device, precision)
    small.step([Batch((0,), torch.ones(1, 8, 8, 8), torch.zeros(1, 112, 112, dtype=torch.uint8))])
    del small
    feature_set.tokens(0)
    if int(limit):
        limit_own_memory(int(limit))
    with kept_memory():
        reader = TokenReader([LabelledFeatures(feature_set, labels)])
        examples, _ = open_examples(reader, device, Residency(residency), positions)
        dim = feature_set.description["dim"]
        head = build_head("deconv", dim, 0, layout=layout)
        trainer = Trainer(head, protocol, device, precision)
        orders = cycle(
            chunks(positions[first :: int(rounds)], protocol.batch) for first in range(int(rounds))
        )

        def work() -> dict[str, Any]:
            losses: list[float] = []
            steps = examples.steps(next(orders))
            seconds = seconds_of(lambda: losses.extend(trainer.train_epoch(steps)), device)
            return {"seconds": seconds, "losses": losses}

        answer_requests(work)


if __name__ == "__main__":
    main()
