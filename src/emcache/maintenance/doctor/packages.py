"""Versions: Python and the packages, against what emcache declares that it needs."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from emcache._version import __version__
from emcache.maintenance.doctor.findings import Finding, Verdict

_NAMED = ("torch", "torchvision", "timm", "open-clip-torch", "peft", "monai", "zarr", "duckdb")
# The wheel of torchvision is built against one torch, and imports with no other.
_PAIR = ("torchvision", "torch")


def look_at_packages() -> Iterator[Finding]:
    """Python, every required package, and the libraries of optional formats.

    Returns:
        ``emcache``; ``packages``, one for each that does not fit; ``formats``, one for each extra.
    """
    try:
        facts = metadata("emcache")
    except PackageNotFoundError:
        yield Finding(
            "emcache",
            Verdict.WARN,
            f"emcache {__version__} runs without being installed, so nothing says what it needs.",
            "install it with `pip install .` in its checkout",
        )
        return
    yield _python(",".join(facts.get_all("Requires-Python") or ()))
    declared = [Requirement(text) for text in requires("emcache") or ()]
    yield from _required(_wanted(declared, ""))
    for extra in facts.get_all("Provides-Extra") or ():
        yield from _optional(extra, _wanted(declared, extra))


def _python(wanted: str) -> Finding:
    running = platform.python_version()
    words = f"emcache {__version__} on Python {running}"
    if SpecifierSet(wanted).contains(running, prereleases=True):
        return Finding("emcache", Verdict.PASS, f"{words}.")
    return Finding(
        "emcache",
        Verdict.FAIL,
        f"{words} where {wanted} is needed.",
        "make an environment with such a Python, and install emcache there",
    )


def _wanted(declared: Iterable[Requirement], extra: str) -> list[Requirement]:
    """What is needed without extras, or what the extra adds to that."""
    return [
        item for item in declared if _applies(item, extra) and not (extra and _applies(item, ""))
    ]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _required(wanted: Sequence[Requirement]) -> Iterator[Finding]:
    problems = [
        Finding("packages", Verdict.FAIL, message, f"`pip install '{_pip(item)}'`")
        for item in (*wanted, *_pair())
        if (message := _mismatch(item))
    ]
    yield from problems
    if not problems:
        names = {item.name.lower().replace("_", "-"): item.name for item in wanted}
        shown = ", ".join(f"{name} {version(names[name])}" for name in _NAMED if name in names)
        yield Finding("packages", Verdict.PASS, f"All {len(wanted)} fit: {shown} and more.")


def _pair() -> list[Requirement]:
    """What torchvision says of torch."""
    one, other = _PAIR
    try:
        stated = [Requirement(text) for text in requires(one) or ()]
    except PackageNotFoundError:
        return []
    if _version(other) is None:
        return []
    return [item for item in stated if item.name == other and _applies(item, "")]


def _optional(extra: str, wanted: Iterable[Requirement]) -> Iterator[Finding]:
    install = f"`pip install 'emcache[{extra}]'`"
    for item in wanted:
        found = _version(item.name)
        if found is None:
            yield Finding(
                "formats",
                Verdict.PASS,
                f"Volumes that need {item.name} are not read: it is not installed.",
                f"to read them, {install}",
            )
        elif message := _mismatch(item):
            yield Finding("formats", Verdict.WARN, message, install)
        else:
            yield Finding("formats", Verdict.PASS, f"{item.name} {found} reads its volumes.")


def _mismatch(requirement: Requirement) -> str | None:
    found = _version(requirement.name)
    if found is None:
        return f"{requirement.name} is not installed."
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found} is installed where {requirement.specifier} is needed."


def _version(name: str) -> str | None:
    try:
        # A folder that an interrupted installation left has no version.
        return version(name) or None
    except (PackageNotFoundError, KeyError):
        return None


def _pip(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"
