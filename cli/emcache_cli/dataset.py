"""``emcache dataset add | list | show | audit | remove | rename | move``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from emcache_cli.options import FormatOption, WorkspaceOption, parse_pair, parse_voxel_size

app = typer.Typer()


class _ManyClasses(TyperCommand):
    """Lets ``--classes`` be followed by all classes at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give each ``NAME=VALUE`` behind ``--classes`` an option of its own."""
        spread: list[str] = []
        following = False
        for before, word in zip(["", *args], args, strict=False):
            following = before == "--classes" or (
                following and "=" in word and not word.startswith("-")
            )
            if following and before != "--classes":
                spread.append("--classes")
            spread.append(word)
        return list(super().parse_args(ctx, spread))


@app.command(cls=_ManyClasses)
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    root: Annotated[Path, typer.Option(metavar="PATH", help="Its folder.")],
    layout: Annotated[
        Literal["lucchi++", "kasthuri++", "vnc", "folder", "stack"],
        typer.Option(help="How its folder is laid out."),
    ] = "folder",
    images: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Images below the root; layout stack: the volume, as FILE or FILE:/ARRAY.",
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Masks below the root, or the volume of masks; without it, unlabelled.",
        ),
    ] = None,
    pair: Annotated[
        Literal["stem", "number", "suffix", "order"] | None,
        typer.Option(help="Layout folder: what an image and its mask share. (default: stem)"),
    ] = None,
    mask_suffix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Layout folder: a mask is called as its image with this behind, as _label.",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="random:FRACTION:SEED, block:FRACTION:GAP, or for each split NAME=GLOB or "
            "NAME=@FILE, a slice a line. (default: random:0.15:42)",
        ),
    ] = None,
    axis: Annotated[
        Literal["z", "y", "x"] | None,
        typer.Option(help="Layout stack: what it is cut along. (default: z)"),
    ] = None,
    mask_threshold: Annotated[
        int | None,
        typer.Option(min=1, max=255, help="Lowest mask value that is foreground. (default: 128)"),
    ] = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Masks hold instance labels: every value above 0 is foreground.",
        ),
    ] = False,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="Mask values of each class, as background=0 mitochondria=191 ignore=255, in place "
            "of a threshold.",
        ),
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X",
            help="Section thickness, row and column pitch in nm. (default: as the file says)",
        ),
    ] = None,
    grey_window: Annotated[
        str | None,
        typer.Option(
            metavar="BLACK,WHITE", help="Values that become 0 and 255, for more than 8 bits."
        ),
    ] = None,
    grey_percentiles: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Or these percentiles of all the dataset's values. (default: 0.1,99.9)",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Only slices whose number is a multiple of this. (default: all slices)",
        ),
    ] = None,
    scramble: Annotated[
        str | None,
        typer.Option(
            metavar="string[:SPLIT]",
            help="For experiments: pair images and masks in string order, which is wrong.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Check a dataset's slices and masks and add it to the workspace."""
    from emcache.data.classes import parse_classes
    from emcache.data.register import add_dataset
    from emcache.data.resize import DEFAULT_PERCENTILES
    from emcache.data.splits import read_split_lists
    from emcache.errors import UsageError
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console
    from emcache_cli.summaries import describe_added

    if instances and (mask_threshold is not None or classes):
        raise UsageError(
            "--instances says what is foreground, and so does --mask-threshold or --classes; leave "
            "one of them out.",
            subject="instances",
        )
    window = parse_pair(grey_window, "--grey-window")
    percentiles = parse_pair(grey_percentiles, "--grey-percentiles") or DEFAULT_PERCENTILES
    extras = {
        "images": images,
        "masks": masks,
        "pair": pair,
        "split": read_split_lists(split) if split else None,
        "axis": axis,
        "mask_suffix": mask_suffix,
        "mask_threshold": 1 if instances else mask_threshold,
        "classes": parse_classes(classes) if classes else None,
        "voxel_size_nm": parse_voxel_size(voxel_size),
        "grey_window": None if window is None else list(window),
        "every": every,
        "scramble": scramble,
    }
    console = Console()
    dataset, _ = add_dataset(
        find_workspace(workspace), name, layout, root, extras, console, percentiles
    )
    for line in describe_added(dataset):
        console.say(line)


@app.command("list")
def list_(output_format: FormatOption = None, workspace: WorkspaceOption = None) -> None:
    """List the workspace's datasets."""
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import dataset_rows

    console = Console()
    rows = dataset_rows(find_workspace(workspace), console)
    if not rows:
        console.say("No datasets yet; emcache dataset add makes one.")
    show_rows(rows, output_format)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A dataset, or NAME:SPLIT.")],
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show a dataset's pairing rule, and every slice with its mask."""
    from emcache.data.dataset import Selection, load_dataset, slice_table_rows
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import describe_added

    console = Console()
    selection = Selection.parse(name)
    dataset = load_dataset(find_workspace(workspace), selection.dataset, console)
    for line in describe_added(dataset):
        console.say(line)
    slices = dataset.slices if selection.split is None else selection.of(dataset)
    show_rows(slice_table_rows(slices, dataset.root), output_format)


@app.command()
def audit(
    name: Annotated[str, typer.Argument(help="A dataset.")],
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Check that the masks belong to their slices, and the rest of the data.

    Exit code 1 where a check fails.
    """
    from emcache.auditing.run import audit_dataset
    from emcache.data.dataset import load_dataset
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_object

    console = Console()
    place = find_workspace(workspace)
    found, _ = audit_dataset(place, load_dataset(place, name, console), console)
    result = found.as_dict()
    show_object(result, result["checks"], output_format)
    console.say(f"Audit of {name}: {found.verdict}.")
    if found.verdict == "fail":
        raise typer.Exit(1)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A dataset.")], workspace: WorkspaceOption = None
) -> None:
    """Take a dataset out of the workspace; its files, features and records stay."""
    from emcache.data.register import remove_dataset
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console

    remove_dataset(find_workspace(workspace), name)
    Console().say(
        f"Removed {name} from emcache.toml; its files, features and records stay. Features that "
        f"no dataset has any more go by `emcache cache prune --stale`."
    )


@app.command()
def rename(
    old: Annotated[str, typer.Argument(help="Its name until now.")],
    new: Annotated[str, typer.Argument(help="Its new name.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Give a dataset another name; scores and distances that are there go by it from now on."""
    from emcache.data.register import rename_dataset
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console

    console = Console()
    dataset, record = rename_dataset(find_workspace(workspace), old, new, console)
    console.say(f"Renamed {old} to {dataset.name}; record {record.id}.")


@app.command()
def move(
    name: Annotated[str, typer.Argument(help="A dataset.")],
    root: Annotated[Path, typer.Argument(metavar="PATH", help="Where its folder is now.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Say where a dataset's folder is now; it must hold the slices that it held."""
    from emcache.data.register import move_dataset
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console

    console = Console()
    dataset = move_dataset(find_workspace(workspace), name, root, console)
    console.say(f"{name} is in {dataset.root} now: {len(dataset.slices)} slices, as they were.")
