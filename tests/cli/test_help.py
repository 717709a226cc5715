import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from emcache.storage.workspace import init_workspace
from emcache_cli.app import app


def commands() -> Iterator[tuple[str, ...]]:
    """Every command's words."""

    def walk(group: typer.main.TyperGroup, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            if isinstance(command, typer.main.TyperGroup):
                yield from walk(command, (*words, name))
            else:
                yield (*words, name)

    root = typer.main.get_command(app)
    assert isinstance(root, typer.main.TyperGroup)
    yield from walk(root, ())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help_and_stands_in_the_docs(
    run, checkout: Path, words: tuple[str, ...]
) -> None:
    result = run(*words, "--help")
    assert result.code == 0
    assert len(result.out.split("\n\n")) > 1
    documented = (checkout / "docs" / "commands.md").read_text()
    assert re.search(rf"^## `emcache {' '.join(words)}\b", documented, re.MULTILINE)


def test_version(run) -> None:
    from emcache import __version__

    assert run("--version").out == f"emcache {__version__}\n"


def seconds(command: list[str]) -> float:
    """Of the processor: whatever else runs on the machine is not in it."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return used() - before


def test_help_is_instant() -> None:
    """At most 4 times ``import typer``, in interleaved pairs."""
    emcache = str(Path(sys.executable).with_name("emcache"))
    pairs = [
        (seconds([emcache, "--help"]), seconds([sys.executable, "-c", "import typer"]))
        for _ in range(5)
    ]
    assert statistics.median(ours / theirs for ours, theirs in pairs) <= 4


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from emcache_cli.app import app; "
        "print([m for m in ('torch', 'numpy', 'polars', 'duckdb', 'altair', 'zarr', 'PIL') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["query", "SELECT count(*) AS n FROM runs"], '"n": 0'),
        (["cache", "list"], "[]"),
        (["cache", "prune"], "[]"),
        (["dataset", "list"], "[]"),
    ],
)
def test_what_computes_nothing_needs_no_torch(
    tmp_path: Path, command: list[str], said: str
) -> None:
    init_workspace(tmp_path)
    code = (
        "import sys; from emcache_cli.main import main\n"
        f"sys.argv = ['emcache', *{command}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ['torch', 'altair', 'scipy.ndimage', 'scipy.optimize', 'sklearn']\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    python = [sys.executable, "-c", code]
    done = subprocess.run(python, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said in done.stdout.removesuffix("[]\n")
    assert done.stdout.endswith("[]\n")
