"""A process that has imported everything and forks for each command: ``python forkserver.py``.

Starting Python and importing torch takes seconds, and a kill that falls there shows nothing. For
each line of JSON (``arguments``, ``cwd``, ``kill_after`` in seconds or null) it forks a child that
runs ``emcache`` with these arguments, kills it by SIGKILL after that time, and answers with how it
ended and what it had written.
Nothing is computed here: a fork of threads that have started would hang.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import time
from typing import Any

import torch

from emcache_cli.main import main

PRELOADED = (
    "emcache.models.lora",
    "emcache.studies.run",
    "emcache_cli.cache_listing",
    "emcache_cli.cache_tables",
    "emcache_cli.study_summaries",
    "emcache_cli.summaries",
    "emcache_cli.upkeep",
    "emcache_warehouse.query",
    "monai.losses",
    "pydantic",
    "typer._adapters",
)


def run(request: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    shown = os.memfd_create("stdout")
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.close(reader)
            os.chdir(request["cwd"])
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(shown, 1)
            os.dup2(writer, 2)
            torch.set_num_threads(1)
            sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, (0, 1, 2), ("r", "w", "w"))
            sys.argv = ["emcache", *request["arguments"]]
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:  # noqa: BLE001 - whatever it is goes to whoever asked
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    killed = False
    if request["kill_after"] is not None:
        deadline = started + request["kill_after"]
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.001)
        else:
            killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    with os.fdopen(shown, "rb") as stream:
        stream.seek(0)
        out = stream.read().decode(errors="replace")
    # It may have ended by itself just before the signal.
    code = os.waitstatus_to_exitcode(status)
    killed = killed and code == -signal.SIGKILL
    seconds = time.monotonic() - started
    return {"killed": killed, "code": code, "out": out, "said": said, "seconds": seconds}


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    # A collection in a child would copy every page of what is shared with it.
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()
