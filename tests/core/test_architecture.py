"""The drawing of the rooms, and that none imports upward."""

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def imports(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(checkout / "benchmarks")
    import imports

    return imports


def test_the_drawing_is_of_todays_imports(imports: ModuleType) -> None:
    found = imports.read_imports(imports.ROOT / "src/emcache")
    drawn = imports.PAGE.read_text().partition("<!-- drawing -->\n")[2].partition("<!-- end -->")[0]
    assert drawn == imports.drawing(found)
    for room in {name.partition(".")[0] for name in found} - imports._EVERYWHERE:
        assert f"| `{room}` |" in imports.PAGE.read_text()


def test_levels_and_rooms_of_a_small_graph(imports: ModuleType) -> None:
    graph = {"a.x": {"b.y", "b.z"}, "b.y": {"b.z"}, "b.z": {"b.y", "c.w"}, "c.w": set()}
    # b.y and b.z import each other, and stand side by side.
    assert imports.levels(graph) == 3
    assert imports.rooms(graph) == {("a", "b"): 2, ("b", "c"): 1}
