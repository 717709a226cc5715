"""``emcache napari``."""

from __future__ import annotations

from emcache_cli.explore import RunsOption, ShownDatasets, SliceOptions, TokensOfOption
from emcache_cli.groups import with_groups
from emcache_cli.options import CachedTokensOptions, DeviceOption, WorkspaceOption


@with_groups
def napari(
    slices: SliceOptions,
    tokens: CachedTokensOptions,
    datasets: ShownDatasets = None,
    runs: RunsOption = None,
    tokens_of: TokensOfOption = None,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Open slices, masks, predictions and token colours in napari."""
    from emcache_cli.console import Console
    from emcache_cli.exploring import open_in_napari

    shown = slices.shown(runs or [], tokens, tokens_of, device)
    open_in_napari(workspace, datasets or [], shown, Console())
