"""Looking for anything that is wrong with the records or the warehouse, without changing either."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb

from emcache.errors import EmcacheError
from emcache.findings import Finding, Verdict, of_sentence
from emcache.storage.records import list_record_ids
from emcache_warehouse.build import DatabaseState, database_state, fill
from emcache_warehouse.database import CATALOG, attach_readonly, first_line, identifier, quote
from emcache_warehouse.ingest import Ingestion
from emcache_warehouse.reading import Problem, SoundRecord, read_records

_REBUILT = "rebuilt"

# Tables whose rows come from records, with the column that names the record.
_TABLES = {
    "records": "record_id",
    "datasets": "record_id",
    "slices": "record_id",
    "feature_sets": "record_id",
    "runs": "run_id",
    "epochs": "run_id",
    "training_slices": "run_id",
    "run_marks": "mark_id",
    "dataset_renames": "rename_id",
    "slice_metrics": "run_id",
    "evaluations": "evaluation_id",
    "evaluation_metrics": "evaluation_id",
    "predictions": "prediction_id",
    "objects": "prediction_id",
    "shape_measurements": "measurement_id",
    "shape_metrics": "measurement_id",
    "audits": "audit_id",
    "audit_checks": "audit_id",
    "audit_scores": "audit_id",
    "gap_measurements": "gap_id",
    "gaps": "gap_id",
    "gap_points": "gap_id",
    "familiarity_checks": "check_id",
    "familiarity": "check_id",
    "embeddings": "record_id",
    "benchmark_runs": "bench_id",
    "benchmarks": "bench_id",
    "benchmark_growth": "bench_id",
}
_SEEDS = ("paper_results", "paper_parameters", "literature_results")

# What can be compared. A dataset whose newest record has gone falls back to an older one in the
# rebuild; neither is wrong.
_COMPARABLE = f"""
CREATE TEMP TABLE shared_records AS
SELECT record_id FROM {CATALOG}.records INTERSECT SELECT record_id FROM {_REBUILT}.records;

CREATE TEMP TABLE one_sided_datasets AS
SELECT dataset FROM (FROM {CATALOG}.datasets UNION ALL FROM {_REBUILT}.datasets)
WHERE record_id NOT IN (SELECT record_id FROM shared_records);
"""  # noqa: S608 - names from this module


def check(runs: Path, database: Path) -> list[Finding]:
    """Compare the records and the warehouse with each other, and both with their checksums.

    Returns:
        At least one finding per thing looked at; a damaged record or a differing table has one of
        its own.
    """
    on_disk = list_record_ids(runs)
    records, problems = read_records(runs, on_disk)
    with tempfile.TemporaryDirectory(prefix="emcache-check-") as folder:
        rebuilt = Path(folder) / "rebuilt.duckdb"
        ingestion = fill(rebuilt, records)
        findings = [_features_finding(records, runs.parent / "cache")]
        return findings + _findings(on_disk, database, rebuilt, ingestion, problems)


def _features_finding(records: Sequence[SoundRecord], cache: Path) -> Finding:
    """Whether the features that runs were trained on are still there; no run needs them to be."""
    named = {str(name) for item in records for name in item.record.config.get("feature_sets") or ()}
    gone = sorted(name for name in named if cache.is_dir() and not (cache / name).is_dir())
    if not gone:
        message = "No feature set that runs were trained on has gone."
        return Finding("features", Verdict.PASS, message)
    count = "1 feature set" if len(gone) == 1 else f"{len(gone)} feature sets"
    return Finding(
        "features",
        Verdict.PASS,
        f"{count} that runs were trained on has gone from the cache ({', '.join(gone[:3])}); the "
        f"runs and their scores stand, and `emcache extract` makes the features again.",
    )


def _findings(
    on_disk: Sequence[str],
    database: Path,
    rebuilt: Path,
    ingestion: Ingestion,
    unread: Sequence[Problem],
) -> list[Finding]:
    problems = [*unread, *ingestion.problems]
    findings = [of_sentence("records", Verdict.FAIL, problem.message) for problem in problems]
    if not problems:
        findings.append(
            Finding(
                "records", Verdict.PASS, f"{len(ingestion.ingested)} records, all checksums match."
            )
        )
    try:
        state = database_state(database)
    except EmcacheError as error:
        return [*findings, of_sentence("warehouse", Verdict.FAIL, str(error))]
    findings.append(schema_finding(state))
    if not state.is_current:
        return findings
    findings.append(pending_finding(set(ingestion.ingested) - state.ingested))
    findings.append(missing_finding(state.ingested - set(on_disk)))
    findings.extend(_row_findings(rebuilt, database))
    return findings


def schema_finding(state: DatabaseState) -> Finding:
    """Whether the database has this package's schema."""
    if state.is_current:
        return Finding("warehouse", Verdict.PASS, "The schema is this version's.")
    return of_sentence(
        "warehouse",
        Verdict.WARN,
        "The schema is that of another version; run `emcache warehouse sync`.",
    )


def pending_finding(pending: Collection[str]) -> Finding:
    """Whether every record is in the database; ``pending`` are those that are not."""
    if not pending:
        return Finding("pending", Verdict.PASS, "Every sound record has been ingested.")
    return of_sentence(
        "pending",
        Verdict.WARN,
        f"{_listed(pending)} not ingested yet; run `emcache warehouse sync`.",
    )


def missing_finding(missing: Collection[str]) -> Finding:
    """Whether every record of the database still has its folder; ``missing`` have none."""
    if not missing:
        return Finding("missing", Verdict.PASS, "Every ingested record is still there.")
    return of_sentence(
        "missing",
        Verdict.WARN,
        f"{_listed(missing)} ingested, but no longer in the records' folder; restore the folder, "
        f"or run `emcache warehouse sync`, which takes the rows out.",
    )


def _listed(ids: Collection[str], limit: int = 3) -> str:
    names = sorted(ids)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    count = "1 record is" if len(names) == 1 else f"{len(names)} records are"
    return f"{', '.join(names[:limit])}{more}: {count}"


def _row_findings(rebuilt: Path, database: Path) -> list[Finding]:
    connection = attach_readonly(database)
    try:
        connection.execute(f"ATTACH {quote(str(rebuilt))} AS {_REBUILT} (READ_ONLY)")
        differing = _differing_tables(connection)
    except duckdb.Error as error:
        return [
            of_sentence(
                "rows",
                Verdict.FAIL,
                f"The rows cannot be read ({first_line(str(error))}); run `emcache warehouse "
                f"rebuild`.",
            )
        ]
    finally:
        connection.close()
    if not differing:
        return [Finding("rows", Verdict.PASS, "Every row is what a rebuild gives.")]
    return [
        of_sentence(
            "rows",
            Verdict.FAIL,
            f"The table {table} has {surplus} rows that the records do not give and lacks "
            f"{lacking} that they do; run `emcache warehouse rebuild`.",
        )
        for table, surplus, lacking in differing
    ]


def _differing_tables(connection: duckdb.DuckDBPyConnection) -> Sequence[tuple[str, int, int]]:
    """Tables whose rows differ, with the number of rows too many and too few.

    Only records on both sides are compared; what is on one side only has findings of its own.
    """
    connection.execute(_COMPARABLE)
    differing = []
    for table in (*_TABLES, *_SEEDS):
        live = _rows(CATALOG, table)
        rebuilt = _rows(_REBUILT, table)
        surplus = _count(connection, f"{live} EXCEPT ALL {rebuilt}")
        lacking = _count(connection, f"{rebuilt} EXCEPT ALL {live}")
        if surplus or lacking:
            differing.append((table, surplus, lacking))
    return differing


def _rows(catalog: str, table: str) -> str:
    rows = f"SELECT * FROM {catalog}.{identifier(table)}"  # noqa: S608 - names from this module
    if key := _TABLES.get(table):
        rows += f" WHERE {key} IN (SELECT record_id FROM shared_records)"  # noqa: S608 - idem
    if table in ("datasets", "slices"):
        rows += " AND dataset NOT IN (SELECT dataset FROM one_sided_datasets)"
    return rows


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    counted = connection.execute(f"SELECT count(*) FROM ({rows})").fetchone()  # noqa: S608 - idem
    return int(counted[0]) if counted else 0
