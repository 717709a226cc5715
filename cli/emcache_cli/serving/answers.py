"""What the server answers: lists of what there is, tables, charts, and pages of chosen slices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from emcache.cache.feature_set import list_feature_sets
from emcache.data.dataset import Dataset, Selection, load_dataset
from emcache.errors import UsageError
from emcache.progress import Quiet
from emcache.storage.run_names import list_run_ids
from emcache.storage.workspace import Workspace
from emcache.views.choice import named_slices
from emcache_warehouse.charts.kinds import CHARTS
from emcache_warehouse.charts.render import html_page
from emcache_warehouse.choice import EVERYTHING, Choice, chosen_rows
from emcache_warehouse.formats import plain_value
from emcache_warehouse.query import list_queries
from emcache_warehouse.sync import sync

if TYPE_CHECKING:
    from emcache.views.sources import Tokens

MOST_ROWS = 5000
"""Rows of a table that are sent."""
MOST_SLICES = 48
"""Slices of one page."""
_FRESH_SECONDS = 30
_KEPT = 8


class Heard(Quiet):
    """Remembers what was said, to show it on the page."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        """Keep a sentence."""
        self.lines.append(message)


class Answers:
    """Everything that may be asked of one workspace; several threads may ask."""

    def __init__(self, workspace: Workspace, device: str) -> None:
        self._workspace = workspace
        self._device = device
        self._datasets: dict[str, tuple[float, Dataset]] = {}
        self._tokens: dict[str, tuple[float, Tokens]] = {}
        # One thing that takes memory at a time: a page, or a dataset that is read.
        self._busy = threading.Lock()
        # The warehouse has one writer.
        self._syncing = threading.Lock()

    def workspace(self) -> dict[str, Any]:
        """Names of what there is; nothing large is opened."""
        return {
            "root": self._workspace.root.name,
            "datasets": self._workspace.dataset_names(),
            "runs": list_run_ids(self._workspace)[::-1],
            "queries": [
                {"name": query.name, "about": query.description}
                for query in list_queries()
                if not any(parameter.default is None for parameter in query.parameters)
            ],
            "charts": [{"name": kind.name, "about": kind.caption} for kind in CHARTS.values()],
        }

    def feature_sets(self) -> list[dict[str, Any]]:
        """Every sound feature set of whole slices."""
        return [
            {
                "name": one.name,
                "slices": len(one),
                **{
                    key: one.description.get(key)
                    for key in ("dataset", "backbone", "weights", "longest_edge", "dtype")
                },
            }
            for one in list_feature_sets(self._workspace.cache)
            if one.description.get("tile") is None
        ]

    def slices(self, dataset: str, text: str, start: int, count: int) -> dict[str, Any]:
        """Some slices of a dataset.

        Args:
            dataset: Its name.
            text: What their names or splits hold; empty for all.
            start: Number of the first.
            count: How many at most.
        """
        items = self._dataset(dataset).slices
        found = [item for item in items if text in item.id or text == item.split]
        return {
            "among": len(items),
            "found": len(found),
            "slices": [
                {
                    "id": item.id,
                    "split": item.split,
                    "rows": item.height,
                    "columns": item.width,
                    "mask": item.mask is not None,
                    "foreground": item.foreground_fraction,
                }
                for item in found[start : start + count]
            ],
        }

    def table(self, name: str) -> dict[str, Any]:
        """Rows of a named query, at most :data:`MOST_ROWS`."""
        self._sync()
        frame = chosen_rows(self._workspace.warehouse, name, EVERYTHING)
        return {
            "columns": frame.columns,
            "count": frame.height,
            "rows": [
                [plain_value(value) for value in row] for row in frame.head(MOST_ROWS).iter_rows()
            ],
        }

    def chart(self, name: str) -> bytes:
        """A chart as a page."""
        if name not in CHARTS:
            raise UsageError(f"there is no chart {name!r:.80}.", subject=name)
        self._sync()
        with self._busy:
            return html_page(CHARTS[name].draw(self._workspace, Choice()))

    def explorer(
        self, names: Sequence[str], features: str | None, runs: Sequence[str], edge: int
    ) -> bytes:
        """The explorer's page of some slices, with tokens that the cache holds.

        Args:
            names: Slices as ``DATASET/ID``.
            features: A feature set; None for no tokens.
            runs: Trained runs that predict.
            edge: The longest side of a picture.
        """
        # PyTorch takes seconds to import, and lists and tables do without.
        from emcache.views.collect import Chosen, collect
        from emcache.views.page import PageOptions, render_page
        from emcache.views.sources import held_tokens

        if not names or len(names) > MOST_SLICES:
            raise UsageError(
                f"found {len(names)} slices; expected 1 to {MOST_SLICES} as slice=DATASET/ID."
            )
        by_dataset: dict[str, list[str]] = {}
        for text in names:
            owner, _, item = text.partition("/")
            by_dataset.setdefault(owner, []).append(item)
        chosen = []
        for name, ids in by_dataset.items():
            dataset = self._dataset(name)
            slices = named_slices(dataset.slices, ids)
            chosen.append(Chosen(Selection(name, None), dataset, slices, len(dataset.slices)))
        with self._busy:
            tokens = None
            if features is not None:
                tokens = _kept(
                    self._tokens, features, lambda: held_tokens(self._workspace, features)
                )
            heard = Heard()
            shown = collect(self._workspace, chosen, tokens, runs, edge, self._device, heard)
            title = f"{', '.join(by_dataset)} in {self._workspace.root.name}"
            source = None if tokens is None else tokens.words
            page, _ = render_page(shown, PageOptions(title, source, heard.lines))
        return page

    def _dataset(self, name: str) -> Dataset:
        with self._busy:
            return _kept(self._datasets, name, lambda: load_dataset(self._workspace, name, Quiet()))

    def _sync(self) -> None:
        with self._syncing:
            sync(self._workspace.runs, self._workspace.warehouse)


_Item = TypeVar("_Item")


def _kept(kept: dict[str, tuple[float, _Item]], name: str, make: Callable[[], _Item]) -> _Item:
    """What was made less than half a minute ago; the oldest goes where there are too many."""
    now = time.monotonic()
    if name not in kept or now - kept[name][0] > _FRESH_SECONDS:
        kept.pop(name, None)
        kept[name] = (now, make())
        while len(kept) > _KEPT:
            del kept[next(iter(kept))]
    return kept[name][1]
