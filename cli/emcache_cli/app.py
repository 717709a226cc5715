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
    cache,
    chart,
    compare,
    dataset,
    demo,
    doctor,
    evaluate,
    extract,
    few_label,
    gap,
    init,
    metrics,
    params,
    predict,
    query,
    report,
    run,
    runs,
    training,
    unet,
    warehouse,
    weights,
    zero_shot,
)

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
app.add_typer(dataset.app, name="dataset")
app.add_typer(weights.app, name="weights")
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
app.add_typer(runs.app, name="runs")
app.command("gap")(gap.gap)
app.command("compare")(compare.compare)
app.command("query")(query.query)
app.add_typer(chart.app, name="chart")
app.command("report")(report.report)
app.add_typer(cache.app, name="cache")
app.add_typer(warehouse.app, name="warehouse")
app.command("params")(params.params)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
