"""Self-contained HTML pages of pictures: no script, no network, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff;
        --card: #f6f8fa; --line: #d0d7de; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --paper: #0f1318; --card: #181e25; --line: #303841;
          --link: #79b8ff; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper);
       color: var(--ink); font: 1rem/1.5 "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; border-bottom: 1px solid var(--line);
     padding-bottom: .3rem; }
p { margin: 0 0 1rem; max-width: 46rem; }
a { color: var(--link); }
nav a { margin-right: 1.25rem; }
.pictures { display: grid; gap: 1rem;
            grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; padding: .5rem; background: var(--card); border: 1px solid var(--line);
         border-radius: .4rem; }
figure img { display: block; width: 100%; height: auto; border-radius: .2rem; }
figcaption { margin: .5rem .15rem .1rem; font-size: .85rem; color: var(--soft); }
</style>
</head>
<body>
<h1>$title</h1>
<p>$lede</p>
$links$sections</body>
</html>
""")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a gallery."""

    data: bytes
    """The picture's file."""
    caption: str
    """What stands below it."""
    alt: str
    """What it shows, for those who do not see it."""
    media: str = "image/png"
    """The kind of file."""


def gallery_page(
    title: str,
    lede: str,
    pictures: Mapping[str, Sequence[Picture]],
    links: Mapping[str, str],
) -> str:
    """A page that shows pictures in groups.

    Args:
        title: Heading and title of the page.
        lede: One paragraph below it.
        pictures: Groups of pictures by their heading, in order.
        links: Addresses by their text, shown above the pictures; relative ones stay relative.

    Returns:
        HTML that needs nothing but itself. Every string is escaped.
    """
    anchors = "".join(
        f'<a href="{escape(address)}">{escape(text)}</a>' for text, address in links.items()
    )
    return _PAGE.substitute(
        title=escape(title),
        lede=escape(lede),
        links=f"<nav>{anchors}</nav>\n" if anchors else "",
        sections="".join(_section(heading, group) for heading, group in pictures.items()),
    )


def _section(heading: str, pictures: Sequence[Picture]) -> str:
    figures = "".join(_figure(picture) for picture in pictures)
    return (
        f"<section>\n<h2>{escape(heading)}</h2>\n"
        f'<div class="pictures">\n{figures}</div>\n</section>\n'
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.data).decode()
    return (
        f'<figure><img src="data:{escape(picture.media)};base64,{data}" '
        f'alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )
