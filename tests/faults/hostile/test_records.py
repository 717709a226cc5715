"""Hostile records, in the library and in the warehouse."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hostile import (
    attempt,
    cases,
    damaged,
    no_fields,
    replaced,
    sealed,
    twisted,
)
from hypothesis import given
from hypothesis import strategies as st

from emcache.evaluation.trained_run import find_run
from emcache.storage.records import Record, list_record_ids, read_record
from emcache.storage.workspace import Workspace
from emcache.studies import records as study_records
from emcache_warehouse.reading import read_records
from emcache_warehouse.sync import sync


def use_run(workspace: Workspace, record_id: str) -> None:
    """All that later commands ask of a trained run."""
    run = find_run(workspace, record_id)
    _ = (run.spec, run.classes.words, run.classes.scored, run.grey_window)
    _ = (run.precision, run.token_precision, run.encoding, run.protocol.label)
    head = run.load_head(torch.device("cpu"))
    head(torch.zeros(1, run.config["dim"], 2, 2), (4, 4))
    run.check_recipe(run.recipe, "itself")


@cases(130, 1000)
@given(data=st.data())
def test_records(runs: Workspace, data: st.DataObject) -> None:
    ids = list_record_ids(runs.runs)
    record_id = data.draw(st.sampled_from(ids))
    file = runs.runs / record_id / "record.json"
    content = json.loads(file.read_bytes())
    if data.draw(st.integers(0, 9)) == 0:
        _, changed = data.draw(damaged({"record": file.read_bytes()}, no_fields))
    elif data.draw(st.booleans()):
        changed = sealed(data.draw(twisted(content)))
    else:
        content["config"] = data.draw(twisted(content["config"]))
        changed = sealed(content)
    with replaced({file: changed}):
        attempt(
            "record",
            lambda: read_record(runs.runs / record_id),
            lambda: touch(read_record(runs.runs / record_id, verify_files=False)),
            lambda: read_records(runs.runs, ids),
            lambda: use_run(runs, record_id),
            lambda: study_records.StudyRecords(runs),
        )


def touch(record: Record) -> None:
    """What every reader of a record asks of it."""
    home = record.folder.resolve()
    assert record.id == record.folder.name
    assert isinstance(record.kind, str)
    record.config.get("dataset")
    for name in record.content["files"]:
        assert record.file(name).resolve().is_relative_to(home), f"{name} leaves the record"


@cases(4, 60)
@given(data=st.data())
def test_records_in_the_warehouse(
    runs: Workspace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """What DuckDB refuses is left out; what it takes must not spoil the rest."""
    ids = list_record_ids(runs.runs)
    file = runs.runs / data.draw(st.sampled_from(ids)) / "record.json"
    content = json.loads(file.read_bytes())
    content["config"] = data.draw(twisted(content["config"]))
    database = tmp_path_factory.mktemp("database") / "w.duckdb"
    with replaced({file: sealed(content)}):
        attempt("record", lambda: sync(runs.runs, database))


@cases(30, 300)
@given(data=st.data())
def test_files_of_a_record(runs: Workspace, data: st.DataObject) -> None:
    """Heads and tables whose checksums are right, and whose content is not."""
    record_id = next(name for name in list_record_ids(runs.runs) if "train-head" in name)
    folder = runs.runs / record_id
    name = data.draw(st.sampled_from(["head.safetensors", "epochs.parquet"]))
    _, content = data.draw(damaged({name: (folder / name).read_bytes()}, no_fields))
    record = json.loads((folder / "record.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    record["files"][name] = {"bytes": len(content), "sha256": digest}
    with replaced({folder / name: content, folder / "record.json": sealed(record)}):
        attempt(
            "record",
            lambda: use_run(runs, record_id),
            lambda: read_records(runs.runs, [record_id]),
        )


@cases(8, 120)
@given(data=st.data())
def test_tables_of_a_record_in_the_warehouse(
    runs: Workspace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A table that DuckDB cannot read keeps no record out but its own."""
    ids = list_record_ids(runs.runs)
    record_id = next(name for name in ids if "train-head" in name)
    folder = runs.runs / record_id
    name = "epochs.parquet"
    _, content = data.draw(damaged({name: (folder / name).read_bytes()}, no_fields))
    record = json.loads((folder / "record.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    record["files"][name] = {"bytes": len(content), "sha256": digest}
    database = tmp_path_factory.mktemp("database") / "w.duckdb"

    def take_in() -> None:
        report = sync(runs.runs, database)
        assert {problem.record_id for problem in report.problems} <= {record_id}
        assert {*report.ingested, record_id} == set(ids)

    with replaced({folder / name: content, folder / "record.json": sealed(record)}):
        attempt("record", take_in)
