from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emcache.errors import DatasetError, UsageError, WorkspaceError
from emcache.storage.workspace import (
    ENVIRONMENT_VARIABLE,
    Workspace,
    find_workspace,
    init_workspace,
)


def test_comments_and_order_survive_an_edit(workspace: Workspace) -> None:
    workspace.config_path.write_text("# mine\n[datasets.b]  # why\nroot = 'x'\nlayout = 'vnc'\n")
    workspace.add_dataset("lucchi++", {"layout": "folder", "root": "/data"})
    text = workspace.config_path.read_text()
    assert text.startswith("# mine\n[datasets.b]  # why\nroot = 'x'\n")
    assert workspace.dataset_names() == ["b", "lucchi++"]
    assert workspace.dataset_options("lucchi++") == {"layout": "folder", "root": "/data"}


def test_init_twice_changes_nothing(tmp_path: Path) -> None:
    first, new = init_workspace(tmp_path)
    first.config_path.write_text("# edited\n")
    again, still_new = init_workspace(tmp_path)
    assert (new, still_new) == (True, False)
    assert again.config_path.read_text() == "# edited\n"


def test_is_found_upward_by_option_and_by_environment(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = workspace.root / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.chdir(below)
    assert find_workspace().root == workspace.root
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="nor a folder above it is a workspace"):
        find_workspace()
    assert find_workspace(workspace.root).root == workspace.root
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(workspace.root))
    assert find_workspace().root == workspace.root
    with pytest.raises(WorkspaceError, match="is not a workspace"):
        find_workspace(tmp_path / "elsewhere")


def test_two_writers_lose_nothing(workspace: Workspace) -> None:
    names = [f"d{number}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(
                lambda name: workspace.add_dataset(name, {"layout": "vnc", "root": "x"}), names
            )
        )
    assert sorted(workspace.dataset_names()) == sorted(names)


def test_an_inline_table_is_added_to(workspace: Workspace) -> None:
    workspace.config_path.write_text("datasets = {}\n")
    workspace.add_dataset("a", {"layout": "vnc", "root": "x"})
    workspace.config_path.write_text('datasets = {b = {layout = "vnc", root = "y"}}\n')
    workspace.add_dataset("a", {"layout": "vnc", "root": "x"})
    assert workspace.dataset_names() == ["b", "a"]


@pytest.mark.parametrize(
    "name", ["x" * 81, "", "a:b", "a/b", "../x", "a b", ".hidden", "pooled", "macro"]
)
def test_names_that_cannot_be(workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a dataset"):
        workspace.add_dataset(name, {"layout": "vnc", "root": "x"})


@pytest.mark.parametrize("text", ["[datasets", "datasets = 3", "[datasets]\nx = 1"])
def test_damaged_file_says_so(workspace: Workspace, text: str) -> None:
    workspace.config_path.write_text(text)
    with pytest.raises(WorkspaceError, match=r"emcache\.toml"):
        workspace.dataset_names()


def test_unknown_dataset_names_the_known(cells: Workspace) -> None:
    with pytest.raises(DatasetError, match=r"no dataset 'cell' .* known: cells"):
        cells.dataset_options("cell")
