"""What is built is what is tested: the wheel, away from the sources."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SITE_PACKAGES = next(Path(p) for p in sys.path if p.endswith("site-packages"))


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; torch and its kin are borrowed from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable,
         "--out-dir", folder, checkout], check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    environment = folder / "venv"
    venv.create(environment)
    # A plain line adds the folder to the path, but runs none of the .pth files in it: the
    # checkout's own editable install stays invisible.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{SITE_PACKAGES}\n")
    python = environment / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True
    )
    return environment / "bin"


@pytest.mark.slow
def test_demo_runs_from_the_wheel(installed: Path, tmp_path: Path, checkout: Path) -> None:
    environment = {**os.environ, "PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )

    code = "import emcache, emcache_warehouse, emcache_cli as c; "
    code += "print(emcache.__file__, emcache_warehouse.__file__, c.__file__, sep='\\n')"
    for path in run(str(installed / "python"), "-c", code).stdout.split():
        assert path.startswith(str(installed.parent))
        assert not path.startswith(str(checkout))

    done = run("emcache", "demo", "here")
    assert "untrained" in done.stderr
    for name in ("iou.html", "curves.html", "slices.html", "warehouse.duckdb", "runs"):
        path = tmp_path / "here" / name
        assert path.exists()
        assert str(path) in done.stderr
    page = (tmp_path / "here" / "slices.html").read_text()
    assert "untrained" in page
    assert page.count("<figure>") == 8
    rows = json.loads(
        run("emcache", "query", "--name", "leaderboard", "--workspace", "here").stdout
    )
    assert {(row["train_on"], row["n_runs"], row["weights"]) for row in rows} == {
        ("sharp", 2, "random:0"),
        ("soft", 2, "random:0"),
    }
    # The demo is worth looking at only if its heads find the organelles.
    assert all(row["iou_fg_mean"] > 0.5 for row in rows)
