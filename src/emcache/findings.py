"""What checks come to: a verdict, and a sentence with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from emcache.errors import EmcacheError


class Verdict(StrEnum):
    """What a check, a look or a benchmark comes to."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    """Worth a look, or a check cannot tell; nothing is refused for it."""
    FAIL = "fail"
    """Something is damaged or wrong: data that failed its audit needs ``--accept-audit``."""
    NA = "n/a"
    """There was nothing to compare with."""

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """The gravest of some verdicts; pass where there are none."""
        order = [Verdict.NA, Verdict.PASS, Verdict.WARN, Verdict.FAIL]
        return max(verdicts, key=order.index, default=Verdict.PASS)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What was looked at: ``device``, ``hub``, ``cache`` and so on."""
    verdict: Verdict
    message: str
    """What was found."""
    remedy: str = ""
    """What to do, with the command in backticks; empty where there is nothing to do."""


def of_sentence(name: str, verdict: Verdict, sentence: str) -> Finding:
    """Take apart the sentence of an error: what was found; what to do.

    Args:
        name: What was looked at.
        verdict: How bad it is.
        sentence: As :class:`~emcache.errors.EmcacheError` carries it.
    """
    message, _, remedy = sentence.rpartition("; ")
    if not message:
        return Finding(name, verdict, sentence)
    return Finding(name, verdict, f"{message}.", remedy.removesuffix("."))


def of_error(name: str, error: Exception) -> Finding:
    """What an exception means for what was looked at."""
    if isinstance(error, EmcacheError):
        return of_sentence(name, Verdict.FAIL, str(error))
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return Finding(
            name,
            Verdict.FAIL,
            f"{error.strerror or error}{place}.",
            "fix that, and run `emcache doctor` again",
        )
    lines = str(error).splitlines() or [""]
    return Finding(
        name,
        Verdict.FAIL,
        f"Looking at it failed ({type(error).__name__}: {lines[0]}).",
        "if no other line says why, report this one as a bug of emcache",
    )


def guarded(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Everything that a look finds; whatever stops it is a finding too.

    Args:
        name: What is looked at.
        look: Gives findings, and may raise anything.
    """
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except Exception as error:  # noqa: BLE001 - one broken part must not hide the others
        findings.append(of_error(name, error))
    return findings
