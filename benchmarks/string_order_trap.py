"""The trap of string order, on made-up slices: what it does to a score, and what the audit says.

::

    python benchmarks/string_order_trap.py

makes the demo's sharp domain twice, once with every mask beside its own slice and once with masks
taken in string order (0, 1, 10, 11, ... 2, 3), trains the study's head on both, and prints what
docs/pairing-trap.md shows. The backbone is untrained.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from emcache_bench.synthetic import STYLES, write_domain

from emcache.auditing.run import audit_dataset
from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.data.register import add_dataset
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace, init_workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync

_SLICES, _SIZE, _SEED = 20, 224, 5
_MASKED = {"images": "images/*.png", "masks": "masks/*.png"}
_FEATURES = FeatureRequest("dinov2-small", "random:0", 224)
_PROTOCOL = Protocol(learning_rate=1e-3, max_epochs=15)
_SCORES = """
SELECT train_on AS masks, seed, round(iou_fg, 3) AS iou_fg, audit_accepted
FROM run_metrics WHERE split = 'test' ORDER BY ALL
"""


def main() -> None:
    """Print the page's figures."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, _ = init_workspace(Path(folder) / "workspace")
        natural = _add(workspace, "natural-order", list(range(_SLICES)))
        string = _add(workspace, "string-order", sorted(range(_SLICES), key=str))
        for name in (natural, string):
            found, _ = audit_dataset(workspace, load_dataset(workspace, name), Quiet())
            (check,) = (check for check in found.checks if check.name == "pairing")
            print(f"{name}: {check.verdict}: {check.message}\n")
            request = TrainingRequest(
                datasets=[name],
                features=_FEATURES,
                protocol=_PROTOCOL,
                seeds=(0, 1, 2),
                accept_audit=True,
            )
            train(workspace, request, Quiet())
        sync(workspace.runs, workspace.warehouse)
        print("| masks | seed | IoU | audit_accepted |\n| --- | --- | --- | --- |")
        for row in run_query(workspace.warehouse, _SCORES, {}).iter_rows():
            print("| " + " | ".join(str(value).lower() for value in row) + " |")


def _add(workspace: Workspace, name: str, order: list[int]) -> str:
    """A dataset whose slice at each place has the mask ``order`` says."""
    root = workspace.root / "data" / name
    write_domain(root, STYLES["sharp"], _SLICES, _SIZE, _SEED)
    files = sorted((root / "masks").iterdir())
    masks = [path.read_bytes() for path in files]
    for path, source in zip(files, order, strict=True):
        path.write_bytes(masks[source])
    add_dataset(workspace, name, "folder", root, _MASKED, Quiet())
    return name


if __name__ == "__main__":
    main()
