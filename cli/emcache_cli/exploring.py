"""From the words of ``explore`` to a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import Selection
from emcache.errors import UsageError
from emcache.progress import Reporter
from emcache.storage.run_names import find_run_id
from emcache.storage.workspace import Workspace, find_workspace
from emcache.views.choice import BY_SCORE, Pick
from emcache.views.collect import Chosen, collect, select_slices
from emcache.views.layers import layers_of
from emcache.views.page import PageOptions, WrittenPage, write_page
from emcache.views.sources import TokenSource, tokens_of_cache, tokens_of_run
from emcache_cli.asking import report_sync
from emcache_warehouse.slice_scores import slice_scores
from emcache_warehouse.sync import sync

_MOST = 12
# Pictures in napari are as large as the slices, up to what is read part by part.
_WHOLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Shown:
    """Which slices are shown, and with what."""

    names: Sequence[str]
    pick: Pick
    count: int | None
    """Of each dataset; None for as many as make twelve in all."""
    seed: int
    runs: Sequence[str]
    request: FeatureRequest
    tokens_of: str | None
    """A run whose backbone makes the tokens."""
    device: str


@dataclass(frozen=True, slots=True)
class PageLook:
    """How the page looks."""

    edge: int
    components: int
    umap: bool


def explore_datasets(
    given: Path | None,
    datasets: Sequence[str],
    shown: Shown,
    look: PageLook,
    out: Path,
    reporter: Reporter,
) -> WrittenPage:
    """Write the explorer of some datasets; of all of them where none is named.

    Raises:
        UsageError: The workspace has no dataset, or the file cannot be written.
    """
    workspace = find_workspace(given)
    chosen = choose(workspace, datasets, shown, reporter, _MOST)
    tokens = _tokens(workspace, chosen, shown, reporter)
    notes = [
        f"{one.selection}: {len(one.slices)} of {one.among} slices, chosen by {shown.pick}"
        f"{f' with seed {shown.seed}' if shown.pick == 'random' else ''}."
        for one in chosen
        if len(one.slices) < one.among and not shown.names
    ]
    if tokens is None:
        names = " ".join(str(one.selection) for one in chosen)
        notes.append(f"There are no tokens of these slices: emcache extract {names} --backbone ...")
        reporter.say(
            "The cache holds no tokens of these slices, so the page shows slices, masks and "
            "predictions alone; name a --backbone to extract them."
        )
    slices = collect(workspace, chosen, tokens, shown.runs, look.edge, shown.device, reporter)
    title = f"{', '.join(dict.fromkeys(item.selection for item in slices))} in emcache"
    source = None if tokens is None else tokens.words
    try:
        options = PageOptions(title, source, notes, look.components, look.umap)
        page = write_page(out, slices, options)
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from error
    reporter.say(f"Wrote {out} ({page.size / 1e6:.1f} MB).")
    if page.reduced is not None:
        off = page.reduced.error
        reporter.say(
            f"Similarities on the page differ from the tokens' by {off.typical:.1g} (root mean "
            f"square) and at most {off.largest:.1g}; their standard deviation is {off.spread:.1g}."
        )
    return page


def open_in_napari(
    given: Path | None, datasets: Sequence[str], shown: Shown, reporter: Reporter
) -> None:
    """Show slices in napari until its window is closed.

    Raises:
        UsageError: napari, or what it draws with, is not installed.
    """
    # Before anything is read or computed.
    try:
        import napari
    except ImportError as error:
        raise UsageError(
            f"napari cannot be imported ({error}); install it with `pip install 'emcache[napari]' "
            f"PyQt6`."
        ) from error
    workspace = find_workspace(given)
    chosen = choose(workspace, datasets, shown, reporter, _MOST)
    tokens = _tokens(workspace, chosen, shown, reporter)
    slices = collect(workspace, chosen, tokens, shown.runs, _WHOLE, shown.device, reporter)
    viewer = napari.Viewer(title=", ".join(str(one.selection) for one in chosen))
    for values, about, kind in layers_of(slices):
        viewer.add_layer(napari.layers.Layer.create(values, about, kind))
    napari.run()


def choose(
    workspace: Workspace, datasets: Sequence[str], shown: Shown, reporter: Reporter, most: int
) -> list[Chosen]:
    """Which slices are shown.

    Args:
        workspace: Where.
        datasets: ``NAME`` or ``NAME:SPLIT``; none for all.
        shown: How they are chosen.
        reporter: Receives what was chosen.
        most: How many in all, unless the count is given.

    Raises:
        UsageError: There is no dataset, or a choice by score without a run.
    """
    names = list(dict.fromkeys(datasets or workspace.dataset_names()))
    if not names:
        raise UsageError(
            "the workspace has no dataset; add one with `emcache dataset add NAME --layout ... "
            "--root ...`."
        )
    selections = [Selection.parse(name) for name in names]
    scores = _scores(workspace, selections, shown, reporter)
    count = max(1, most // len(selections)) if shown.count is None else shown.count
    return select_slices(
        workspace, selections, shown.names, count, shown.pick, reporter, scores, shown.seed
    )


def _tokens(
    workspace: Workspace, chosen: Sequence[Chosen], shown: Shown, reporter: Reporter
) -> TokenSource | None:
    kept = [one.selection for one in chosen]
    if shown.tokens_of is not None:
        return tokens_of_run(
            workspace, kept, shown.tokens_of, shown.device, reporter, shown.request.weights
        )
    return tokens_of_cache(workspace, kept, shown.request, shown.device, reporter)


def _scores(
    workspace: Workspace, selections: Sequence[Selection], shown: Shown, reporter: Reporter
) -> Mapping[str, Mapping[str, float]]:
    """Of the first run, where slices are chosen by them."""
    if shown.pick not in BY_SCORE or shown.names:
        return {}
    if not shown.runs:
        raise UsageError(f"--pick {shown.pick} needs scores; say of which run with --run RUN.")
    run = find_run_id(workspace, shown.runs[0])
    report_sync(sync(workspace.runs, workspace.warehouse), reporter)
    return {
        str(one): slice_scores(workspace.warehouse, run, one.dataset, one.split)
        for one in selections
    }
