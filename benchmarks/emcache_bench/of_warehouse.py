"""Benchmarks of the warehouse: taking records in, and asking for the leaderboard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from emcache_bench.growth import GrowthPoint, growth_sizes
from emcache_bench.made_up_records import write_training_records
from emcache_bench.ratio import Measurement, Target
from emcache_bench.setting import Setting
from emcache_warehouse.database import private_database
from emcache_warehouse.query import run_named_query
from emcache_warehouse.sync import sync

_RUNS, _SLICES = 10_000, 100
_ENOUGH = Target(500.0, at_least=True)
_AT_ONCE = Target(1.0, at_least=False)

_FILL = """
INSERT INTO records BY NAME
SELECT format('20260101-000000-{:06d}-train-head-000000', i) AS record_id, 'train-head' AS kind,
    'finished' AS status, TIMESTAMP '2026-01-01' AS started_at,
    TIMESTAMP '2026-01-01' AS finished_at, 1.0 AS seconds, '{}' AS versions, '{}' AS host,
    '{}' AS config
FROM range($runs) AS made(i);

INSERT INTO runs BY NAME
SELECT format('20260101-000000-{:06d}-train-head-000000', i) AS run_id, 'frozen' AS regime,
    'dinov2-small' AS backbone, 'random:0' AS weights, 266 AS longest_edge, 'paper' AS protocol,
    'vnc' AS train_on, 'natural' AS sampling, i % 5 AS seed,
    format('setup {}', i // 5) AS setup_fingerprint
FROM range($runs) AS made(i);

INSERT INTO slice_metrics BY NAME
SELECT format('20260101-000000-{:06d}-train-head-000000', i) AS run_id, 'vnc' AS eval_on,
    'test' AS split, format('{:03d}', j) AS slice_id, 'foreground' AS class,
    500 + (i * 7 + j) % 100 AS tp, 100 AS fp, 100 AS fn, 3000 AS tn
FROM range($runs) AS made(i), range($slices) AS counted(j);
"""


def measure_leaderboard(setting: Setting) -> Iterator[Measurement]:
    """The leaderboard over 10,000 runs with 1,000,000 slice rows, as a query asks for it."""
    database = setting.folder / "leaderboard" / "warehouse.duckdb"
    database.parent.mkdir(parents=True)
    sync(database.parent / "runs", database)
    with private_database(database) as connection:
        for statement in connection.extract_statements(_FILL):
            values = {"runs": _RUNS, "slices": _SLICES}
            named = {name: values[name] for name in statement.named_parameters}
            connection.execute(statement, named)
    seconds: list[float] = []
    for number in setting.rounds().numbers(lambda: _AT_ONCE.reached_by(min(seconds))):
        taken = _seconds_of_leaderboard(database, _RUNS // 5)
        if number >= 0:
            seconds.append(taken)
    yield _absolute(
        "leaderboard",
        f"seconds of the leaderboard over {_RUNS:,} runs and {_RUNS * _SLICES:,} slice rows",
        seconds,
        _AT_ONCE,
        "s",
        {"leaderboard": seconds},
    )


def measure_ingest(setting: Setting) -> Iterator[Measurement]:
    """Records taken in per second, into a warehouse that is there already."""
    count = 500 if setting.quick else 2000
    root = setting.folder / "ingest"
    runs, empty = root / "runs", root / "empty"
    for folder in (runs, empty):
        folder.mkdir(parents=True)
    write_training_records(runs, range(count), 20)
    rates, seconds = [], []
    for number in range(-1, 3):
        database = root / str(number) / "warehouse.duckdb"
        sync(empty, database)
        report = sync(runs, database)
        if number < 0:
            continue
        seconds.append(report.seconds)
        rates.append(len(report.ingested) / report.seconds)
    yield _absolute(
        "ingest",
        f"records of training taken in per second, {count:,} at once, 20 slices each",
        rates,
        _ENOUGH,
        "records/s",
        {"sync": seconds},
    )


def growth_of_warehouse(setting: Setting) -> Iterator[GrowthPoint]:
    """Taking in and asking, against the number of slices of 20 runs.

    One size more than the other stages have: below it, what any run costs hides what a slice does.
    """
    sizes = growth_sizes(setting.quick)
    for count in (*sizes, 10 * sizes[-1]):
        root = setting.folder / f"warehouse-{count}"
        runs, empty = root / "runs", root / "empty"
        for folder in (runs, empty):
            folder.mkdir(parents=True)
        write_training_records(runs, range(20), count)
        ingest = []
        for number in range(3):
            database = root / str(number) / "warehouse.duckdb"
            sync(empty, database)
            ingest.append(sync(runs, database).seconds)
        yield GrowthPoint("ingest", count, min(ingest))
        query = min(_seconds_of_leaderboard(database, 1) for _ in range(3))
        yield GrowthPoint("query", count, query)


def _seconds_of_leaderboard(database: Path, rows: int) -> float:
    started = time.perf_counter()
    found = run_named_query(database, "leaderboard")
    seconds = time.perf_counter() - started
    assert found.height == rows, found  # noqa: S101 - a fast wrong answer is not an answer
    return seconds


def _absolute(
    name: str,
    question: str,
    values: list[float],
    target: Target,
    unit: str,
    times: dict[str, list[float]],
) -> Measurement:
    """Of absolute values the best counts: other work on the machine makes them only worse."""
    kept = tuple((what, tuple(seconds)) for what, seconds in times.items())
    best = max(values) if target.at_least else min(values)
    return Measurement(
        name, question, best, min(values), max(values), target, unit=unit, times=kept
    )
