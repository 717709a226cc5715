"""The demo: the main job on made-up data, from an empty folder to charts and a page."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.cache.extract import run_extraction
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Dataset, Selection, load_dataset
from emcache.data.images import outline_overlay, read_image, read_mask
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.errors import WorkspaceError
from emcache.models.backbones.registry import find_backbone
from emcache.models.weights import find_weights, is_untrained
from emcache.progress import Reporter
from emcache.storage import atomic
from emcache.storage.file_index import FileIndex
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace, init_workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import find_protocol
from emcache.training.run import train
from emcache_warehouse.charts.curves import curves_chart
from emcache_warehouse.charts.iou import iou_chart
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.formats import render
from emcache_warehouse.query import run_query
from emcache_warehouse.report.content import Picture, Section
from emcache_warehouse.report.page import report_page
from emcache_warehouse.sync import sync

_SLICES = 16
_SIZE = 280
_LONGEST_EDGE = 56
DEFAULT_BACKBONE = "dinov2-small"
DEFAULT_WEIGHTS = "random:0"
_SEEDS = (0, 1)
# The paper's learning rate is meant for hundreds of epochs; the demo has a minute.
_CHANGES = {"max_epochs": 10, "learning_rate": 1e-3}
_LEDE = (
    "Test slices of two made-up domains with the true outline in blue and the predicted one in "
    "orange, as small heads learned them in a few epochs at a small size from tokens of "
)
_UNTRAINED = (
    "The backbone is untrained (random weights): this shows the way of working, not how good a "
    "model is."
)
_PRETRAINED = "The slices are made up: the scores say nothing of microscopes."
_SUMMARY = """
SELECT train_on, eval_on, weights, count(*) AS runs, avg(iou_fg) AS iou_fg_mean
FROM run_metrics WHERE split = 'test' GROUP BY ALL ORDER BY ALL
"""


def run_demo(folder: Path, backbone: str, weights: str, reporter: Reporter) -> None:
    """Make two domains, extract, train, fill the warehouse, draw, and say where everything is.

    Args:
        folder: The workspace to make.
        backbone: Whose tokens heads are trained on.
        weights: Its weights, as for ``emcache extract``.
        reporter: Receives progress.

    Raises:
        WorkspaceError: The folder holds something already.
        BackboneError: No such backbone; no folder is made.
        WeightsError: No such weights (no folder is made), or they do not fit.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkspaceError(
            f"{folder} holds something already; expected a new or empty folder: choose another, as "
            f"`emcache demo other-folder`.",
            subject=folder,
        )
    started = time.monotonic()
    # Before there is a folder, which a second try would find.
    find_weights(weights, find_backbone(backbone), FileIndex(folder / "cache" / "files.json"))
    workspace, _ = init_workspace(folder)
    caveat = _UNTRAINED if is_untrained(weights) else _PRETRAINED
    reporter.say(f"Demo in {workspace.root}. {caveat}")
    options = ExtractOptions(backbone, weights, _LONGEST_EDGE)
    records = {name: _run_domain(workspace, name, options, reporter) for name in STYLES}
    report = sync(workspace.runs, workspace.warehouse)
    for problem in report.problems:
        reporter.say(f"Warning: {problem.message}")
    lede = f"{_LEDE}{backbone}. {caveat}"
    outputs = _write_outputs(workspace, records, lede)
    summary = render(run_query(workspace.warehouse, _SUMMARY, {}), "table")
    reporter.say(str(summary).rstrip())
    for what, path in {
        **outputs,
        "Warehouse": workspace.warehouse,
        "Records": workspace.runs,
    }.items():
        reporter.say(f"{what}: {path}")
    reporter.say(
        f"Done in {time.monotonic() - started:.0f} s. Ask on, as: emcache query --name leaderboard "
        f"--workspace {folder}"
    )


def _run_domain(
    workspace: Workspace, name: str, options: ExtractOptions, reporter: Reporter
) -> Sequence[Record]:
    root = workspace.root / "data" / name
    write_domain(root, STYLES[name], _SLICES, _SIZE, seed=len(name))
    extras = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, name, "folder", root, extras, reporter)
    run_extraction(plan_extraction(workspace, Selection(name, None), options, reporter), reporter)
    protocol = find_protocol("paper").with_changes(_CHANGES)
    request = TrainingRequest(
        datasets=[name], protocol=protocol, seeds=_SEEDS, save_predictions=True
    )
    return train(workspace, request, reporter)


def _write_outputs(
    workspace: Workspace, records: dict[str, Sequence[Record]], lede: str
) -> dict[str, Path]:
    root = workspace.root
    iou, curves, page = root / "iou.html", root / "curves.html", root / "slices.html"
    save_chart(iou_chart(chart_rows("iou", workspace.warehouse)), iou)
    save_chart(curves_chart(chart_rows("curves", workspace.warehouse)), curves)
    sections = [
        Section(
            f"{name}-{run.config['seed']}",
            f"{name}, seed {run.config['seed']}",
            pictures=_pictures(load_dataset(workspace, name), run),
        )
        for name, runs in records.items()
        for run in runs
    ]
    links = {"Test scores": iou.name, "Learning curves": curves.name}
    html = report_page("emcache demo: slices with outlines", lede, sections, links)
    atomic.write_bytes(page, html.encode())
    return {"Test scores": iou, "Learning curves": curves, "Slices with outlines": page}


def _pictures(dataset: Dataset, run: Record) -> list[Picture]:
    pictures = []
    for item in dataset.slices:
        if item.split != "test":
            continue
        place = f"{dataset.name}/{item.id}.png"
        overlay = outline_overlay(
            read_image(item.image),
            read_mask(Plane(run.file(f"masks/{place}"))),
            read_mask(Plane(run.file(f"predictions/{place}"))),
        )
        what = f"slice {item.id} of {dataset.name}, seed {run.config['seed']}"
        pictures.append(
            Picture(_png(overlay), what, f"{what}, with true and predicted outlines of organelles")
        )
    return pictures


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
