"""The tree of commands.

Modules of commands import nothing heavy at their top, so that help is instant; each command body
imports what it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from emcache import __version__
from emcache_cli import (
    bench,
    compare,
    demo,
    doctor,
    evaluate,
    explore,
    extract,
    few_label,
    gap,
    init,
    metrics,
    napari,
    params,
    predict,
    query,
    report,
    run,
    serve,
    training,
    unet,
    zero_shot,
)
from emcache_cli.lazy import lazy_group

app = typer.Typer(
    help="An embedding cache for vision foundation models on electron-microscopy slices.",
    no_args_is_help=True,
    add_completion=False,
    # Ctrl-C and our errors are turned into sentences in one place, emcache_cli.main.
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"emcache {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    del version


app.command("init")(init.init)
app.add_typer(lazy_group("dataset", "Datasets of slices and masks."), name="dataset")
app.add_typer(lazy_group("weights", "Short names of weights files."), name="weights")
app.command("extract")(extract.extract)
app.command("train-head")(training.train_head)
app.command("few-label")(few_label.few_label)
app.command("train-lora")(training.train_lora)
app.command("train-full")(training.train_full)
app.command("train-unet")(unet.train_unet)
app.command("zero-shot")(zero_shot.zero_shot)
app.command("evaluate")(evaluate.evaluate)
app.command("metrics")(metrics.metrics)
app.command("predict")(predict.predict)
app.command("run")(run.run)
app.add_typer(
    lazy_group("runs", "Trained runs: what is there, and what scores leave out."), name="runs"
)
app.command("gap")(gap.gap)
app.command("compare")(compare.compare)
app.command("query")(query.query)
app.add_typer(lazy_group("chart", "Charts of what the warehouse holds."), name="chart")
app.command("report")(report.report)
app.command("explore")(explore.explore)
app.command("serve")(serve.serve)
app.command("napari")(napari.napari)
app.add_typer(
    lazy_group(
        "cache", "The feature sets on the disk: what is there, whether it is whole, what can go."
    ),
    name="cache",
)
app.add_typer(
    lazy_group(
        "warehouse", "The DuckDB index over the records; delete it and rebuild brings it back."
    ),
    name="warehouse",
)
app.command("params")(params.params)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
