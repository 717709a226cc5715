"""The machine: what computes, the installed packages, and the model hub."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from threading import Thread

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from emcache._version import __version__
from emcache.findings import Finding, Verdict

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_PROCESS_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

# A training step of the study's head at 1022 px on a CPU asks for some 6 GB beside the tokens.
_ENOUGH_MEMORY = 8_000_000_000
_ENOUGH_DEVICE_MEMORY = 4_000_000_000
_SMALLER = (
    "close other programs, or use a smaller `--longest-edge`, `--resident disk`, and with "
    "`train-lora` `--checkpoint` and `--accumulate 2`"
)


def look_at_device() -> Iterator[Finding]:
    """The device that ``--device auto`` takes, whether it computes, and in which way."""
    import torch

    from emcache.models.device import pick_device
    from emcache.models.measured import timings

    device = pick_device()
    try:
        torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        yield Finding(
            "device",
            Verdict.FAIL,
            f"{device} is there but does not compute ({str(error).splitlines()[0]}).",
            "compute with `--device cpu`, or install the torch that fits the driver",
        )
        device = torch.device("cpu")
    else:
        yield _device(device.type)
    chosen = {
        "arithmetic": ("bfloat16", "`--precision auto` computes in {}"),
        "layout": ("layout", "heads compute {}"),
        "threads": ("threads", "PyTorch computes with {} threads"),
    }
    for name, timed in timings(device).items():
        finding, words = chosen[name]
        if timed is not None:
            message = f"{words.format(timed.fastest)}, since {_compare(timed.seconds)}"
            message += "; measured once, and again by `emcache doctor --measure`."
            yield Finding(finding, Verdict.PASS, message)
        elif name == "arithmetic":
            message = f"{device} has no bfloat16 of its own, so {words.format('float32')}."
            yield Finding(finding, Verdict.PASS, message)


def _compare(seconds: Mapping[str, float]) -> str:
    """How long each way takes beside the fastest."""
    (best, least), *others = sorted(seconds.items(), key=lambda each: each[1])
    return ", ".join(f"{way} takes {long / least:.2f} times as long" for way, long in others) + (
        f" as {best}"
    )


def _device(kind: str) -> Finding:
    import torch

    if kind == "cuda":
        name = torch.cuda.get_device_name()
        return Finding("device", Verdict.PASS, f"cuda: {name}, {torch.cuda.device_count()} in all.")
    words = f"{kind}: {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if kind == "cpu":
        words += f", {torch.backends.cpu.get_cpu_capability()}"
        if _NVIDIA_DRIVER.exists():
            return Finding(
                "device",
                Verdict.WARN,
                f"{words}; there is an NVIDIA driver, but torch {torch.__version__} does not use "
                f"it.",
                "install a torch built for the driver's CUDA (https://pytorch.org/get-started)",
            )
    return Finding("device", Verdict.PASS, f"{words}.")


def look_at_memory() -> Iterator[Finding]:
    """Main memory, within the limit that a job scheduler or container sets."""
    import psutil

    facts = psutil.virtual_memory()
    limit = _group_limit()
    total, free = (min(size, limit or size) for size in (facts.total, facts.available))
    yield _memory("memory", total, free, _ENOUGH_MEMORY)


def look_at_device_memory() -> Iterator[Finding]:
    """Memory of the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield _memory("device-memory", total, free, _ENOUGH_DEVICE_MEMORY)


def _memory(name: str, total: int, free: int, enough: int) -> Finding:
    message = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of them free."
    if free >= enough:
        return Finding(name, Verdict.PASS, message)
    return Finding(
        name,
        Verdict.WARN,
        f"{message} Training at the study's size takes about {enough / 1e9:.0f} GB.",
        _SMALLER,
    )


def _group_limit() -> int | None:
    """Bytes that the process's control group may use; None without a limit."""
    try:
        group = _PROCESS_GROUP.read_text(encoding="utf-8").partition("0::/")[2].splitlines()[0]
        return int((_GROUPS / group / "memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError):
        return None


_NAMED = ("torch", "torchvision", "timm", "open-clip-torch", "peft", "monai", "zarr", "duckdb")
# The wheel of torchvision is built against one torch, and imports with no other.
_PAIR = ("torchvision", "torch")


_EXTRAS = {
    "clipseg": "text prompts (emcache zero-shot)",
    "hdf5": "volumes in HDF5",
    "mrc": "volumes in MRC",
    "napari": "layers in napari (emcache napari)",
    "serve": "the workspace in a browser (emcache serve)",
}
"""What each extra is for."""


def look_at_packages() -> Iterator[Finding]:
    """Python, every required package, and the libraries of extras.

    Returns:
        ``emcache``; ``packages``, one for each that does not fit; ``extras``, one for each package
        of an extra.
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
    purpose = _EXTRAS.get(extra, extra)
    for item in wanted:
        found = _version(item.name)
        if found is None:
            yield Finding(
                "extras",
                Verdict.PASS,
                f"There are no {purpose}: {item.name} is not installed.",
                f"to have them, {install}",
            )
        elif message := _mismatch(item):
            yield Finding("extras", Verdict.WARN, message, install)
        else:
            yield Finding("extras", Verdict.PASS, f"{item.name} {found} is here for {purpose}.")


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
    from emcache.models.weights.finding import is_pretrained_at_hand

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
