"""A workspace: the folder that holds ``emcache.toml``, the cache, the records and the warehouse.

``emcache.toml`` is the user's file: it is edited in place and keeps its comments. Every other file
of a workspace is emcache's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from emcache.errors import DatasetError, UsageError, WorkspaceError
from emcache.storage import atomic
from emcache.storage.hashing import is_utf8

_MOST_BITS = 900

# Parsers take the square of a dotted name's length: one of 40 kB would take minutes.
_LONG_NAME = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){64}")


def find_long_name(text: str) -> str | None:
    """What in a TOML file would take too long to parse, in words; None where nothing does."""
    found = _LONG_NAME.search(text)
    return None if found is None else f"a dotted name of many parts ({found[0][:40]}...)"


def find_oddity(content: Any) -> str | None:
    """What in the content of a TOML file cannot be used, in words; None where all can."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return "a whole number of hundreds of digits"
        elif isinstance(value, str) and "\0" in value:
            return "a text with a NUL character"
    return None


CONFIG_NAME = "emcache.toml"
ENVIRONMENT_VARIABLE = "EMCACHE_WORKSPACE"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
FIRST_NAME = "first_name"
"""Option of a dataset that was renamed: what it was called when it was added."""

_RESERVED_NAMES = ("macro", "pooled")
_TEMPLATE = """\
# An emcache workspace. Edit freely: comments and order are kept when emcache adds to this file.
# `emcache dataset add NAME --layout ... --root ...` writes the tables below, and
# `emcache weights add NAME PATH` those of weights files.
"""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths of one workspace."""

    root: Path
    """The folder with ``emcache.toml``."""
    _declared: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def with_declared(self, tables: Mapping[str, Mapping[str, Any]]) -> Workspace:
        """This workspace with further datasets, which ``emcache.toml`` does not list yet."""
        return replace(self, _declared=tables)

    @property
    def config_path(self) -> Path:
        """``emcache.toml``."""
        return self.root / CONFIG_NAME

    @property
    def cache(self) -> Path:
        """Feature sets, one folder each."""
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        """Records, one folder each."""
        return self.root / "runs"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file; it may be deleted at any time."""
        return self.root / "warehouse.duckdb"

    def dataset_names(self) -> list[str]:
        """Names of the datasets, in the order of the file."""
        return list({**self._datasets(self._read()), **self._declared})

    def dataset_options(self, name: str) -> Mapping[str, Any]:
        """What ``emcache.toml`` says about a dataset, as plain values.

        Raises:
            DatasetError: No such dataset; the known ones are named.
            WorkspaceError: The file cannot be read.
        """
        tables = {**self._datasets(self._read()), **self._declared}
        if name not in tables:
            known = ", ".join(tables) or "none yet; `emcache dataset add` makes one"
            raise DatasetError(
                f"there is no dataset {name!r:.100} in {self.config_path}; known: {known}.",
                subject=name,
            )
        options: Mapping[str, Any] = tables[name]
        return options

    def add_dataset(self, name: str, options: Mapping[str, Any]) -> None:
        """Write a dataset's table into ``emcache.toml``.

        Raises:
            UsageError: The name cannot be used.
            DatasetError: The name is taken.
        """
        check_dataset_name(name)
        with self._editing() as document:
            if name in self._datasets(document):
                raise DatasetError(
                    f"there is a dataset {name!r} already in {self.config_path}; choose another "
                    f"name, or run `emcache dataset remove {name}` first.",
                    subject=name,
                )
            _add_table(document, "datasets", name, options)

    def remove_dataset(self, name: str) -> None:
        """Take a dataset's table out of the file.

        Raises:
            WorkspaceError: The file cannot be read.
        """
        with self._editing() as document:
            if name in self._datasets(document):
                section: Any = document["datasets"]
                del section[name]

    def rename_dataset(self, old: str, new: str) -> None:
        """Write a dataset's table under another name, with what it was called first.

        Raises:
            UsageError: The new name cannot be used.
            DatasetError: The new name is taken.
        """
        check_dataset_name(new)
        with self._editing() as document:
            tables = self._datasets(document)
            if new in tables:
                raise DatasetError(
                    f"there is a dataset {new!r} already in {self.config_path}; choose another "
                    f"name.",
                    subject=new,
                )
            section: Any = document["datasets"]
            table = section[old]
            del section[old]
            first = {FIRST_NAME: old} if FIRST_NAME not in tables[old] else {}
            if isinstance(table, InlineTable):
                _add_table(document, "datasets", new, {**first, **tables[old]})
            else:
                # Item by item, since comments are items too.
                _add_table(document, "datasets", new, first)
                for key, item in table.value.body:
                    section[new].append(key, item)

    def set_dataset_option(self, name: str, option: str, value: str) -> None:
        """Write one option of a dataset's table.

        Raises:
            DatasetError: There is no such dataset.
        """
        self.dataset_options(name)
        with self._editing() as document:
            section: Any = document["datasets"]
            section[name][option] = value

    def weights_tables(self) -> dict[str, Any]:
        """What ``emcache.toml`` says under ``[weights]``, by short name; unchecked plain values.

        Raises:
            WorkspaceError: The file cannot be read, or ``weights`` is not a table.
        """
        return self._section(self._read(), "weights")

    def cluster_tables(self) -> dict[str, Any]:
        """What ``emcache.toml`` says under ``[clusters]``; unchecked plain values.

        Raises:
            WorkspaceError: The file cannot be read, or ``clusters`` is not a table.
        """
        return self._section(self._read(), "clusters")

    def add_weights(self, name: str, options: Mapping[str, Any]) -> None:
        """Write the table of a short name of weights, in place of one that is there.

        Raises:
            WorkspaceError: As above.
        """
        with self._editing() as document:
            self._section(document, "weights")
            _add_table(document, "weights", name, options)

    def remove_weights(self, name: str) -> None:
        """Take the table of a short name of weights out of the file.

        Raises:
            WorkspaceError: As above.
        """
        with self._editing() as document:
            if name in self._section(document, "weights"):
                section: Any = document["weights"]
                del section[name]

    @contextmanager
    def _editing(self) -> Iterator[tomlkit.TOMLDocument]:
        """The file's content, written back in the end; one process at a time."""
        with FileLock(self.root / ".emcache.toml.lock"):
            document = self._read()
            yield document
            atomic.write_bytes(self.config_path, tomlkit.dumps(document).encode())

    def _read(self) -> tomlkit.TOMLDocument:
        try:
            text = self.config_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkspaceError(
                f"{self.config_path} cannot be read ({error}); restore it, or start anew with "
                f"`emcache init`.",
                subject=self.config_path,
            ) from error
        try:
            oddity = find_long_name(text)
            document = tomlkit.parse("" if oddity else text)
            oddity = oddity or find_oddity(document.unwrap())
        except (TOMLKitError, RecursionError, ValueError) as error:
            # Tables without end, and numbers of thousands of digits, are errors of Python's own.
            raise WorkspaceError(
                f"{self.config_path} is not valid TOML: {error}; fix that line.",
                subject=self.config_path,
            ) from error
        if oddity is not None:
            raise WorkspaceError(
                f"{self.config_path} holds {oddity}; fix that line.", subject=self.config_path
            )
        return document

    def _datasets(self, document: tomlkit.TOMLDocument) -> dict[str, Mapping[str, Any]]:
        tables = document.unwrap().get("datasets", {})
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise WorkspaceError(
                f"`datasets` in {self.config_path} is not a table of tables; expected "
                f"[datasets.NAME] sections: fix it.",
                subject=self.config_path,
            )
        for name in tables:
            check_dataset_name(name)
        return tables

    def _section(self, document: tomlkit.TOMLDocument, name: str) -> dict[str, Any]:
        tables = document.unwrap().get(name, {})
        if not isinstance(tables, dict):
            raise WorkspaceError(
                f"`{name}` in {self.config_path} is not a table; expected [{name}.NAME] sections: "
                f"fix it.",
                subject=self.config_path,
            )
        return tables


def _add_table(
    document: tomlkit.TOMLDocument, section: str, name: str, options: Mapping[str, Any]
) -> None:
    """Write a named table into a section, in the form that the section has."""
    if section not in document:
        document[section] = tomlkit.table(is_super_table=True)
    table: Any = tomlkit.table()
    if isinstance(document[section], InlineTable):
        table = tomlkit.inline_table()
    table.update(options)
    tables: Any = document[section]
    tables[name] = table


def is_plain_name(text: str) -> bool:
    """Whether a text may name a folder: letters, digits and ``. _ + -``, 80 at most."""
    return _NAME.fullmatch(text) is not None


def check_dataset_name(name: str) -> None:
    """Refuse a dataset name that could not be a folder's name or be told from a split or a score.

    Raises:
        UsageError: With the rule.
    """
    if not is_plain_name(name) or name in _RESERVED_NAMES:
        raise UsageError(
            f"{name!r} cannot name a dataset; expected up to 80 letters, digits and . _ + - (first "
            f"a letter or digit), and not {' or '.join(_RESERVED_NAMES)}.",
            subject=name,
        )


def _named(folder: Path) -> Workspace:
    root = folder.resolve()
    if not is_utf8(str(root)):
        # DuckDB, Polars and the records' JSON keep names as UTF-8.
        raise WorkspaceError(
            f"the name of the folder {str(root)!r} is not UTF-8, as a workspace's must be; rename "
            f"it, or choose another folder.",
            subject=root,
        )
    return Workspace(root)


def init_workspace(folder: Path) -> tuple[Workspace, bool]:
    """Make ``folder`` a workspace; one that is one already is left as it is.

    Returns:
        The workspace, and whether it is new.

    Raises:
        WorkspaceError: The folder cannot be made or written, or its name is not text.
    """
    workspace = _named(folder)
    if workspace.config_path.exists():
        return workspace, False
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(workspace.config_path, _TEMPLATE.encode())
    except OSError as error:
        raise WorkspaceError(
            f"{folder} cannot become a workspace ({error.strerror}); choose a folder you can "
            f"write to.",
            subject=folder,
        ) from error
    return workspace, True


def find_workspace(given: Path | None = None) -> Workspace:
    """The workspace to work in: ``given``, else ``$EMCACHE_WORKSPACE``, else from here upward.

    Raises:
        WorkspaceError: There is none, or its name is not text.
    """
    named = given or (Path(value) if (value := os.environ.get(ENVIRONMENT_VARIABLE)) else None)
    if named is not None:
        workspace = _named(named)
        if not workspace.config_path.is_file():
            raise WorkspaceError(
                f"{named} is not a workspace (it holds no {CONFIG_NAME}); make it one with "
                f"`emcache init {named}`.",
                subject=named,
            )
        return workspace
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise WorkspaceError("the current folder is gone; change to one that is there.") from None
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return _named(folder)
    raise WorkspaceError(
        f"neither {here} nor a folder above it is a workspace (none holds {CONFIG_NAME}); make one "
        f"with `emcache init .`, or name one with --workspace.",
        subject=here,
    )
