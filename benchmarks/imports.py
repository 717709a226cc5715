"""Who imports whom in the library: counts, levels, and the drawing of docs/architecture.md.

::

    python benchmarks/imports.py [FOLDER]        # prints the counts, of another checkout too
    python benchmarks/imports.py --write         # writes the drawing into the page
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
_START, _END = "<!-- drawing -->\n", "<!-- end -->"


def read_imports(package: Path) -> dict[str, set[str]]:
    """Modules of a package, each with those of the same package that it imports anywhere."""
    files = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        files[".".join(part for part in parts if part != "__init__")] = path
    found = {}
    for name, path in files.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == (
                package.name
            ):
                base = (node.module or "").partition(".")[2]
                for alias in node.names:
                    whole = f"{base}.{alias.name}".strip(".")
                    imported.add(whole if whole in files else base)
        # The package itself holds the names that it offers, and imports them when they are used.
        found[name] = imported - {name, ""}
    found.pop("", None)
    return found


def levels(imports: Mapping[str, set[str]]) -> int:
    """How many modules stand above one another at most; those of a circle stand side by side."""
    component = _components(imports)
    below: dict[int, set[int]] = {number: set() for number in component.values()}
    for name, imported in imports.items():
        below[component[name]] |= {component[other] for other in imported} - {component[name]}
    height: dict[int, int] = {}

    def measure(number: int) -> int:
        if number not in height:
            height[number] = 1 + max((measure(other) for other in below[number]), default=0)
        return height[number]

    return max(map(measure, below))


def _components(imports: Mapping[str, set[str]]) -> dict[str, int]:
    """Modules of one circle have one number."""
    reach = {name: _reachable(imports, name) for name in imports}
    numbers: dict[str, int] = {}
    for name in imports:
        circle = [other for other in reach[name] if name in reach[other]]
        numbers[name] = min(numbers.get(other, len(numbers)) for other in [*circle, name])
    return numbers


def _reachable(imports: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for other in imports[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def rooms(imports: Mapping[str, set[str]]) -> Counter[tuple[str, str]]:
    """Arrows from one room to another; a module that stands alone is a room of its own."""
    return Counter(
        (_room(name), _room(other))
        for name, imported in imports.items()
        for other in imported
        if _room(name) != _room(other)
    )


def _room(name: str) -> str:
    return name.partition(".")[0]


def drawing(imports: Mapping[str, set[str]]) -> str:
    """Rooms as a Mermaid flowchart; arrows that follow from others are left out."""
    arrows = rooms(imports)
    sizes = Counter(_room(name) for name in imports)
    below: dict[str, set[str]] = {room: set() for room in sizes}
    for one, other in arrows:
        below[one].add(other)
    lines = ["```mermaid", "flowchart TD"]
    lines += [
        f"    {room}[{room}, {count} module{'s' if count > 1 else ''}]"
        for room, count in sorted(sizes.items())
        if room not in _EVERYWHERE
    ]
    for one in sorted(below):
        for other in sorted(below[one] - _EVERYWHERE):
            around = set().union(*(_reachable(below, via) for via in below[one] - {other}))
            if one not in _EVERYWHERE and other not in around:
                lines.append(f"    {one} --> {other}")
    return "\n".join([*lines, "```", ""])


_EVERYWHERE = {"ahead", "errors", "progress", "summaries", "validation", "findings", "_version"}
"""Small modules that any room may import; the drawing leaves them out."""


def main(arguments: list[str]) -> None:
    """Print the counts, or write the drawing."""
    if arguments == ["--write"]:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(_START)
        after = rest.partition(_END)[2]
        text = drawing(read_imports(ROOT / "src" / "emcache"))
        PAGE.write_text(f"{before}{_START}{text}{_END}{after}", encoding="utf-8")
        return
    root = Path(arguments[0]) if arguments else ROOT
    imports = read_imports(root / "src" / "emcache")
    arrows = rooms(imports)
    print(f"{len(imports)} modules, {sum(map(len, imports.values()))} arrows between them")
    print(f"{levels(imports)} levels of modules")
    print(f"{len({_room(name) for name in imports})} rooms, {len(arrows)} pairs of them joined")
    upward = [(a, b) for a, b in arrows if (b, a) in arrows and a < b]
    print(f"{len(upward)} pairs joined both ways: {upward}")


if __name__ == "__main__":
    main(sys.argv[1:])
