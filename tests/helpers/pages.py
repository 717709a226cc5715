"""Opening pages in headless Chromium, without a network."""

from __future__ import annotations

import subprocess
from pathlib import Path


def chromium(browser: str, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page; what it writes on the console comes with standard error."""
    return subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}", "--virtual-time-budget=12000",
            "--enable-logging=stderr", "--v=0", "--window-size=1250,6000", *options,
        ],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
