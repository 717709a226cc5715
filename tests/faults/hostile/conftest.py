"""Bounds of time and memory for every hostile case, and what several kinds of them need."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hostile import (
    ADDRESS_SPACE,
    CASES,
    MOST_SECONDS,
    MOST_WAITING,
    HangError,
    status,
)
from safetensors.torch import save_file

from emcache.cache.recipe import Recipe
from emcache.data.resize import preprocessing_of
from emcache.models.heads import build_head
from emcache.storage.records import new_record
from emcache.storage.workspace import Workspace, init_workspace
from emcache.training.protocol import Protocol


def _ring(*_: object) -> None:
    raise HangError(f"longer than {MOST_SECONDS} s, or waiting longer than {MOST_WAITING} s")


@pytest.fixture(scope="module", autouse=True)
def _bounds(request: pytest.FixtureRequest) -> Iterator[None]:
    CASES.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + ADDRESS_SPACE, hard))
    alarms = (signal.SIGALRM, signal.SIGPROF)
    before = [signal.signal(alarm, _ring) for alarm in alarms]
    yield
    for alarm, handler in zip(alarms, before, strict=True):
        signal.signal(alarm, handler)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    _tell(request.config)


def _tell(config: pytest.Config) -> None:
    line = {"fuzz cases": CASES.total(), "by kind": dict(sorted(CASES.items()))}
    if path := os.environ.get("EMCACHE_FAULTS_REPORT"):
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nfuzz cases: {CASES.total()} {dict(sorted(CASES.items()))}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a record of each regime, as training writes them, and of an evaluation."""
    workspace = init_workspace(tmp_path_factory.mktemp("runs") / "w")[0]
    recipe = Recipe(
        "tiny", "tiny", "0" * 64, preprocessing_of(14, 70, None, None, "x"), "float32", "float16"
    )
    for regime in ("frozen", "lora"):
        kind = "train-head" if regime == "frozen" else "train-lora"
        with new_record(workspace.runs, kind) as draft:
            protocol = Protocol(head="linear")
            save_file(build_head("linear", 64, 0).state_dict(), draft.path("head.safetensors"))
            draft.write_table(
                "epochs.parquet",
                pl.DataFrame(
                    {
                        "epoch": [1, 2],
                        "train_loss": [0.5, 0.4],
                        "val_loss": [0.5, 0.4],
                        "val_iou_fg": [0.1, 0.2],
                        "seconds": [1.0, 1.0],
                    }
                ),
            )
            draft.config = {
                "regime": regime,
                "backbone": "tiny",
                "weights": "random:0",
                "weights_sha256": "0" * 64,
                "longest_edge": 70,
                "pixel_size_nm": None,
                "protocol": protocol.label,
                "protocol_fields": protocol.as_dict(),
                "train_on": "cells",
                "sampling": "natural",
                "seed": 0,
                "head": "bn-linear",
                "precision": "float32",
                "recipe": recipe.identity(),
                "dim": 64,
                "classes": [["background", [0]], ["mitochondria", [255]]],
                "grey_window": [0.0, 255.0],
                "train_slices": ["cells/1"],
                "val_slices": ["cells/2"],
                "run_fingerprint": "f" * 64,
                "epochs_run": 2,
                "train_seconds": 2.0,
            }
    with new_record(workspace.runs, "evaluate") as draft:
        draft.config = {
            "run_id": "x",
            "eval_on": ["cells"],
            "data_keys": ["0" * 64],
            "whole": ["cells"],
        }
    return workspace
