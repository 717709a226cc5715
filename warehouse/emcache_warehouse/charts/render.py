"""A chart as a file: an HTML page, a picture, or the Vega-Lite it consists of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from emcache.errors import UsageError
from emcache.storage import atomic
from emcache_warehouse.charts.theme import Whole

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 1rem; background: white; }}
#chart, .vega-embed {{ max-width: 100%; }}
#chart svg {{ max-width: 100%; height: auto; }}
.vega-embed details, .vega-embed details summary {{ position: relative; }}
</style>
<script>{library}</script>
</head>
<body>
<div id="chart"></div>
<script>
vegaEmbed("#chart", {spec}, {{mode: "vega-lite", renderer: "svg", actions: {{export: true,
  source: false, compiled: false, editor: false}}}}).catch(console.error);
</script>
</body>
</html>
"""
_PIXELS_PER_POINT = 2


def save_chart(chart: Whole, path: Path) -> None:
    """Write a chart in the format that the file's ending names, whole or not at all.

    ``.html`` carries the drawing library and works without a network; ``.png`` has two pixels per
    point; ``.svg``; ``.json`` is Vega-Lite.

    Raises:
        UsageError: The ending is another one.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UsageError(
            f"{path.name} has the ending {path.suffix or '(none)'}; a chart is written as "
            f"{', '.join(_WRITERS)}.",
            subject=path,
        )
    # Validating thousands of rows takes longer than drawing them.
    atomic.write_bytes(path, writer(chart.to_dict(validate=False)))


def html_page(chart: Whole) -> bytes:
    """A chart as a page that needs no network."""
    return _html(chart.to_dict(validate=False))


def _html(spec: Mapping[str, Any]) -> bytes:
    # Inside a script, "</script>" in a name would end it.
    text = json.dumps(spec).replace("<", "\\u003c")
    # The signature in the package's stub asks for a snippet; without one comes the whole library.
    library = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    return _PAGE.format(title=escape(_title(spec)), library=library, spec=text).encode()


def _png(spec: Mapping[str, Any]) -> bytes:
    png: bytes = vl_convert.vegalite_to_png(
        dict(spec), vl_version=VEGA_LITE, scale=_PIXELS_PER_POINT
    )
    return png


def _svg(spec: Mapping[str, Any]) -> bytes:
    svg: str = vl_convert.vegalite_to_svg(dict(spec), vl_version=VEGA_LITE)
    return svg.encode()


def _json(spec: Mapping[str, Any]) -> bytes:
    return (json.dumps(spec, indent=1, ensure_ascii=False) + "\n").encode()


def _title(spec: Mapping[str, Any]) -> str:
    title = spec.get("title", "Chart")
    return str(title["text"] if isinstance(title, dict) else title)


# The version that the charts are written in: v6.4.1 is 6.4 to the renderer.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])

_WRITERS: Mapping[str, Callable[[Mapping[str, Any]], bytes]] = {
    ".html": _html,
    ".png": _png,
    ".svg": _svg,
    ".json": _json,
}
