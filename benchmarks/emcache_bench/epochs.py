"""Epochs from the cache: against tokens in memory, and against running the backbone each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from emcache.freed import kept_memory
from emcache.models.arithmetic import autocast, pick_precision
from emcache.models.heads import Segmenter, build_head
from emcache.models.layouts import pick_layout
from emcache.models.loading import load_backbone
from emcache.training.batches import (
    Batch,
    Examples,
    PixelReader,
    Residency,
    SizedSlice,
    TokenReader,
    open_examples,
)
from emcache.training.protocol import Protocol
from emcache.training.sampling import chunks
from emcache.training.trainer import Trainer
from emcache_bench.ratio import Measurement, Target, is_settled, of_rounds
from emcache_bench.setting import MadeUpData, Setting
from emcache_bench.timing import Times, Work, interleave, quotients

_EDGE = 266
_ALMOST_ALL = Target(0.95, at_least=True)


def measure_epochs(setting: Setting) -> Iterator[Measurement]:
    """Epochs of the study's head at 266 px, batch 2; on half the slices where it must be quick."""
    device, edge = setting.device, _EDGE
    slices = 4 if setting.quick else 8
    with kept_memory():
        data = MadeUpData(setting.folder / "epochs", slices, edge, edge, device)
        epochs = _Epochs(data)
        sound = epochs.are_alike()

        def settled(times: Times) -> bool:
            cached = (quotients(times["bare"], times[name]) for name in epochs.residencies)
            return is_settled((ratios, _ALMOST_ALL) for ratios in (*cached, _shares(times)))

        times = interleave(epochs.works(), setting.rounds(5, 20), device, settled)
    note = "" if sound else "the cache gave other batches than the memory"
    for residency in epochs.residencies:
        name = f"cached-epoch-{residency}"
        yield of_rounds(
            name,
            f"epoch, batches in memory / from the cache with --resident {residency}, {edge} px",
            quotients(times["bare"], times[residency]),
            _ALMOST_ALL,
            {"in memory": times["bare"], "cached": times[residency]},
            device=device.type,
            note=note,
            sound=sound,
        )
    yield of_rounds(
        "on-the-fly-share",
        f"(epoch on the fly / cached epoch) / ((backbone + head) / head), {edge} px",
        _shares(times),
        _ALMOST_ALL,
        {
            "on the fly": times["fly"],
            "cached": times["ram"],
            "backbone": times["backbone"],
            "head": times["bare"],
        },
        device=device.type,
        note=note,
        sound=sound,
    )


def _shares(times: Times) -> list[float]:
    """Of the speed that arithmetic promises, what a cached epoch reaches, round by round."""
    sides = (times[name] for name in ("fly", "ram", "backbone", "bare"))
    return [
        (fly / cached) / ((backbone + bare) / bare)
        for fly, cached, backbone, bare in zip(*sides, strict=True)
    ]


class _Epochs:
    """The same steps on the same head, from wherever the batches come."""

    def __init__(self, data: MadeUpData) -> None:
        job, device = data.job, data.device
        self._precision = pick_precision("auto", device)
        self._device = device
        self._order = chunks(range(data.slices), 2)
        head = build_head("deconv", job.spec.dim, 0, layout=pick_layout(device, self._precision))
        self._head = Trainer(head, Protocol(), device, self._precision)
        self.residencies = ["ram", "disk"]
        if device.type == "cuda":
            self.residencies.insert(0, "device")
        tokens = TokenReader([data.features])
        positions = list(range(data.slices))
        self._examples = {
            name: open_examples(tokens, device, Residency(name), positions)[0]
            for name in self.residencies
        }
        self._batches = list(self._examples["ram"].steps(self._order))
        backbone = load_backbone(job.spec, job.weights, device)
        sized = [
            SizedSlice(item, place.grid, job.dataset.classes)
            for item, place in zip(job.slices, job.places, strict=True)
        ]
        pixels = PixelReader(sized, job.spec.patch)
        # The reference decodes and resizes every slice in every epoch.
        self._pixels = open_examples(pixels, device, Residency.DISK, positions)[0]
        whole = Segmenter(backbone, head)
        self._fly = Trainer(whole, Protocol(), device, self._precision)
        self._backbone = backbone
        self._images = [batch.inputs for step in self._pixels.steps(self._order) for batch in step]

    def are_alike(self) -> bool:
        """Whether all sides make the same steps: equal tokens, equal masks, as many on the fly."""
        cached = all(
            _equal(self._batches, examples.steps(self._order))
            for examples in self._examples.values()
        )
        fly = [[batch.positions for batch in step] for step in self._pixels.steps(self._order)]
        return cached and fly == [[batch.positions for batch in step] for step in self._batches]

    def works(self) -> dict[str, Work]:
        """What is timed, by name."""

        def cached(examples: Examples) -> Work:
            return lambda: self._head.train_epoch(examples.steps(self._order))

        return {
            "bare": lambda: self._head.train_epoch(iter(self._batches)),
            **{name: cached(self._examples[name]) for name in self.residencies},
            "fly": lambda: self._fly.train_epoch(self._pixels.steps(self._order)),
            "backbone": self._forward,
        }

    def _forward(self) -> None:
        with torch.no_grad(), autocast(self._device, self._precision):
            for images in self._images:
                self._backbone(images)


def _equal(some: Iterable[Sequence[Batch]], others: Iterable[Sequence[Batch]]) -> bool:
    a, b = ([batch for step in steps for batch in step] for steps in (some, others))
    return len(a) == len(b) and all(
        torch.equal(x.inputs.cpu(), y.inputs.cpu()) and torch.equal(x.masks.cpu(), y.masks.cpu())
        for x, y in zip(a, b, strict=True)
    )
