"""Figures of slices: their tokens as colours, and what a run makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import Selection, load_dataset
from emcache.data.resize import resize_colour
from emcache.errors import DatasetError, UsageError
from emcache.evaluation.trained_run import TrainedRun, find_run
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace, find_workspace
from emcache.views.collect import ShownSlice, collect
from emcache.views.colours import pca_colours
from emcache.views.overlays import (
    MASK_COLOUR,
    MISTAKES,
    PREDICTION_COLOUR,
    as_colour,
    filled,
    mistakes,
)
from emcache.views.sources import TokenSource, tokens_of_cache, tokens_of_run
from emcache_cli.exploring import Shown, choose
from emcache_warehouse.charts.panels import Key, Panel, panels_chart
from emcache_warehouse.charts.theme import Whole

_EDGE = 512
_COLUMNS = 4


def tokens_figure(
    given: Path | None,
    datasets: Sequence[str],
    shown: Shown,
    also: Sequence[str],
    tokens_of: Sequence[str],
    reporter: Reporter,
    *,
    own_basis: bool = False,
) -> Whole:
    """Draw slices by columns and tokens by rows, coloured by their principal components.

    Args:
        given: The workspace; None for the one that is found.
        datasets: Which; none for all.
        shown: Which slices.
        also: Backbones whose frozen tokens make further rows.
        tokens_of: Trained runs whose backbones make the tokens of further rows.
        reporter: Receives progress.
        own_basis: Whether each dataset has a basis of its own.

    Raises:
        UsageError: There are no tokens.
    """
    workspace = find_workspace(given)
    chosen = choose(workspace, datasets, shown, reporter, _COLUMNS)
    selections = [one.selection for one in chosen]
    requests = [shown.request, *(FeatureRequest(backbone=name) for name in also)]
    sources = [
        tokens_of_cache(workspace, selections, request, shown.device, reporter)
        for request in requests
    ]
    sources += [
        tokens_of_run(workspace, selections, run, shown.device, reporter) for run in tokens_of
    ]
    # A frozen run's tokens are those of the cache.
    known = {source.words: source for source in sources if source is not None}
    if not known:
        raise UsageError(
            f"there are no tokens of {', '.join(map(str, selections))}; extract them with `emcache "
            f"extract {selections[0]} --backbone ...`."
        )
    slices = collect(workspace, chosen, None, (), _EDGE, shown.device, reporter)
    panels = [Panel("slice", s.name, as_colour(s.image), _width_nm(s)) for s in slices]
    for source in known.values():
        panels += _token_row(slices, source, own_basis)
    subtitle = [
        f"red, green and blue: the first three principal components of the tokens of a row, "
        f"{'each dataset by itself' if own_basis else 'all its slices together'}"
    ]
    return panels_chart(panels, "Patch tokens by their principal components", subtitle)


def predictions_figure(
    given: Path | None,
    run: str,
    datasets: Sequence[str],
    shown: Shown,
    reporter: Reporter,
) -> Whole:
    """Draw slices by rows, with mask, prediction and mistakes by columns.

    Args:
        given: The workspace; None for the one that is found.
        run: A trained run.
        datasets: Which; none for the test slices of those that it was trained on.
        shown: Which slices.
        reporter: Receives progress.

    Raises:
        UsageError: The run cannot predict.
    """
    workspace = find_workspace(given)
    trained = find_run(workspace, run)
    chosen = choose(
        workspace,
        datasets or _own_tests(workspace, trained),
        shown,
        reporter,
        _COLUMNS,
    )
    slices = collect(workspace, chosen, None, [trained.id], _EDGE, shown.device, reporter)
    panels = [panel for item in slices for panel in _prediction_row(item)]
    if not any(item.predictions for item in slices):
        raise UsageError(f"run {trained.id} cannot predict here; the reason stands above.")
    config = trained.config
    subtitle = [
        f"{config['regime']} {config['backbone'] or ''} {config['weights'] or ''}, trained on "
        f"{config['train_on']}, seed {config['seed']}; {trained.id}"
    ]
    # A false positive has the colour that predictions have.
    keys = [
        Key("mask", MASK_COLOUR),
        Key("prediction, false positive", PREDICTION_COLOUR),
        *(Key(name, colour) for name, colour in MISTAKES.items() if name != "false positive"),
    ]
    return panels_chart(panels, "What the run makes of slices", subtitle, keys)


def _own_tests(workspace: Workspace, trained: TrainedRun) -> list[str]:
    found = []
    for name in trained.config["train_on"].split(" + "):
        dataset = load_dataset(workspace, name)
        try:
            Selection(name, "test").of(dataset)
        except DatasetError:
            found.append(name)
        else:
            found.append(f"{name}:test")
    return found


def _token_row(slices: Sequence[ShownSlice], source: TokenSource, own_basis: bool) -> list[Panel]:
    names = list(dict.fromkeys(item.selection for item in slices))
    groups = [[s for s in slices if s.selection == name] for name in names]
    colours: dict[str, UInt8[np.ndarray, "row col 3"]] = {}
    for group in groups if own_basis else [list(slices)]:
        pictures = pca_colours([source.grid(item.selection, item.item) for item in group])
        colours |= {item.name: picture for item, picture in zip(group, pictures, strict=True)}
    return [
        Panel(
            source.words,
            item.name,
            resize_colour(colours[item.name], (item.image.shape[0], item.image.shape[1])),
            _width_nm(item),
        )
        for item in slices
    ]


def _prediction_row(item: ShownSlice) -> list[Panel]:
    prediction = next(iter(item.predictions), None)
    score = ""
    if prediction is not None and prediction.counts is not None:
        score = f", IoU {prediction.counts.iou:.3f}"
    row, width = f"{item.name}{score}", _width_nm(item)
    panels = [Panel(row, "slice", as_colour(item.image), width)]
    if item.labels is not None:
        panels.append(Panel(row, "mask", filled(item.image, item.labels, MASK_COLOUR), width))
    if prediction is not None:
        found = filled(item.image, prediction.labels, PREDICTION_COLOUR)
        panels.append(Panel(row, "prediction", found, width))
        if item.labels is not None:
            wrong = mistakes(item.image, item.labels, prediction.labels)
            panels.append(Panel(row, "mistakes", wrong, width))
    return panels


def _width_nm(item: ShownSlice) -> float | None:
    return None if item.pixel_nm is None else item.pixel_nm[1] * item.item.width
