"""A report as one HTML file: no network, keyboard and screen reader, dark and light, print."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from emcache._version import __version__
from emcache.errors import UsageError
from emcache.storage import atomic
from emcache.storage.workspace import Workspace
from emcache_warehouse.charts.render import VEGA_LITE
from emcache_warehouse.choice import EVERYTHING, Choice, of_runs
from emcache_warehouse.packaged import packaged_text
from emcache_warehouse.report.content import Section
from emcache_warehouse.report.sections import all_sections

EXPLORER_MARK = b'<meta name="generator" content="emcache explore">'
"""By which an explorer is told from other pages."""

_HEAD = 1 << 10


def write_report(workspace: Workspace, out: Path, choice: Choice = EVERYTHING) -> None:
    """Write the report of a workspace, whole or not at all.

    Args:
        workspace: Its warehouse is up to date.
        out: An ``.html`` file.
        choice: Of which runs and data; ``where`` is a condition on the columns of ``runs``.

    Raises:
        UsageError: Another ending; a choice that leaves no run.
        WarehouseError: The warehouse cannot be read.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{out.name} has the ending {out.suffix or '(none)'}; a report is written as .html.",
            subject=out,
        )
    made = f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by emcache {__version__}."
    title = f"emcache report: {workspace.root.name}"
    sections = all_sections(workspace, of_runs(workspace.warehouse, choice))
    page = report_page(title, made, sections, _explorers(out.parent))
    # A folder's name need not be text.
    atomic.write_bytes(out, page.encode(errors="backslashreplace"))


def _explorers(folder: Path) -> dict[str, str]:
    """Explorers that were written into the report's own folder, by what links to them says."""
    found = {}
    for path in sorted(folder.glob("*.html")):
        with suppress(OSError), path.open("rb") as page:
            if EXPLORER_MARK in page.read(_HEAD):
                found[f"Explorer of tokens ({path.name})"] = quote(path.name)
    return found


def report_page(
    title: str, lede: str, sections: Sequence[Section], links: Mapping[str, str] | None = None
) -> str:
    """HTML of some sections; every string that is not ours is escaped.

    Args:
        title: Heading and title of the page.
        lede: One paragraph below it.
        sections: What it consists of.
        links: Addresses of other pages by their text.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    specs = {figure.name: figure.spec for section in sections for figure in section.figures}
    # The signature in the package's stub asks for a snippet; without one comes the whole library.
    library = vl_convert.javascript_bundle(vl_version=VEGA_LITE) if specs else ""  # type: ignore[call-arg]
    return environment.from_string(packaged_text("report/page.html.j2")).render(
        title=title,
        lede=lede,
        sections=sections,
        links=links or {},
        # Ours, and JSON in which no tag can begin.
        library=Markup(library),  # noqa: S704
        specs=Markup(json.dumps(specs).replace("<", "\\u003c")),  # noqa: S704
    )
