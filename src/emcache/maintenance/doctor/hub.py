"""The hub that pretrained weights come from, and which of them are here already."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

from emcache.maintenance.doctor.findings import Finding, Verdict

_SECONDS = 3.0
# A mirror need not have a page at its root.
_REACHED = (404, 405)
_WITHOUT = "use `--weights FILE`, or try things out with `--weights random:0`"


def look_at_hub() -> Iterator[Finding]:
    """Whether the hub answers, and which pretrained weights of the study are in its cache."""
    from huggingface_hub import constants

    trouble = _trouble(constants.ENDPOINT)
    if trouble is None:
        yield Finding("hub", Verdict.PASS, f"{constants.ENDPOINT} answers.")
    elif constants.HF_HUB_OFFLINE:
        yield Finding("hub", Verdict.WARN, trouble, f"unset HF_HUB_OFFLINE, or {_WITHOUT}")
    else:
        yield Finding(
            "hub", Verdict.WARN, f"{constants.ENDPOINT} is out of reach ({trouble}).", _WITHOUT
        )
    yield _weights(reachable=trouble is None)


def _weights(*, reachable: bool) -> Finding:
    from emcache.models.backbones.registry import STUDY_BACKBONES
    from emcache.models.weights.hub import is_pretrained_at_hand

    here = [spec.name for spec in STUDY_BACKBONES if is_pretrained_at_hand(spec)]
    if here:
        return Finding("weights", Verdict.PASS, f"Pretrained and here: {', '.join(here)}.")
    if reachable:
        return Finding(
            "weights", Verdict.PASS, "No pretrained weights are here; the hub has them when asked."
        )
    return Finding(
        "weights",
        Verdict.WARN,
        "No pretrained weights are here, and the hub is out of reach.",
        _WITHOUT,
    )


def _trouble(endpoint: str) -> str | None:
    """Why the hub cannot be asked; None where it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the hub is never asked."
    answers: list[str | None] = []
    # The name's look-up has no time limit of its own.
    thread = Thread(target=lambda: answers.append(_ask(endpoint)), daemon=True)
    thread.start()
    thread.join(_SECONDS + 1)
    return answers[0] if answers else f"no answer within {_SECONDS:.0f} s"


def _ask(endpoint: str) -> str | None:
    from huggingface_hub import get_session

    try:
        status = get_session().head(endpoint, timeout=_SECONDS).status_code
    except Exception as error:  # noqa: BLE001 - versions of the client differ in what they raise
        return type(error).__name__
    return None if status < 400 or status in _REACHED else f"it answers with status {status}"
