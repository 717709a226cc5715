"""Heads that are fitted to a few labelled points: which points, and the fit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emcache.cache.inputs import normalise
from emcache.data.dataset import Slice
from emcache.data.images import read_mask
from emcache.errors import UsageError
from emcache.models.fitting import Annotated, FittedHead
from emcache.models.heads import Head
from emcache.training.annotations import (
    Points,
    annotations_sha256,
    drawn_clicks,
    drawn_scribbles,
    read_annotations,
)
from emcache.training.batches import Reader
from emcache.training.plan import Regime, TrainingPlan
from emcache.training.protocol import Protocol
from emcache.training.sampling import Source, Sources
from emcache.training.trainer import Fit


class Learned(NamedTuple):
    """What a model learned from, and what that came to."""

    fit: Fit
    train: Sequence[int]
    """Positions of the slices that it learned from."""
    val: Sequence[int]
    """Of those that chose the best epoch."""
    facts: Mapping[str, Any]
    """What the record says of them."""


def check_method(regime: Regime, protocol: Protocol, sources: Sources) -> None:
    """Refuse a head that the regime cannot make.

    Raises:
        UsageError: It is one of another regime, or has a field of one, or is to be fitted to more
            than two classes.
    """
    regime.check_head(protocol.head)
    regime.check_fields(protocol)
    if (regime.fits or not regime.learns) and len(sources.class_names) > 2:
        raise UsageError(
            f"{sources.names} has the classes {', '.join(sources.class_names)}; expected two, "
            f"since foreground is told from background alone: train a head instead.",
            subject=sources.names,
        )


def with_annotations(protocol: Protocol, path: Path | None) -> Protocol:
    """The protocol with the name and the hash of a user's own points.

    Raises:
        UsageError: They are not there.
    """
    if path is None:
        if protocol.annotations != "none":
            raise UsageError(
                f"the protocol has annotations {protocol.annotations}, and no file of them is "
                f"given; expected the file: the protocol gets its name and hash from it.",
                subject="annotations",
            )
        return protocol
    return replace(protocol, annotations=f"{path.name}@{annotations_sha256(path)[:8]}")


def fit_few_labels(
    head: Head, reader: Reader, plan: TrainingPlan, train: Sequence[Sequence[int]], seed: int
) -> Learned:
    """Annotate training slices, as a user would or as a user did, and fit a head to them.

    Args:
        head: Is fitted.
        reader: Gives tokens, and slices where the head reads these.
        plan: Of the training.
        train: Positions of the training slices of each source.
        seed: Of the slices and the points that are drawn.

    Raises:
        UsageError: Too few pixels or slices, a class without a point, or annotations that do not
            fit the slices.
    """
    assert isinstance(head, FittedHead)  # noqa: S101 - the regime builds no other
    started = time.perf_counter()
    random = np.random.default_rng(seed)
    chosen: dict[int, Points] = {}
    for source, positions in zip(plan.sources.items, train, strict=True):
        chosen |= _points_of(source, positions, plan, random)
    slices = []
    for position, points in chosen.items():
        example = reader.read(position)
        image = None if example.pixels is None else normalise(example.pixels[None])[0].numpy()
        tokens = example.values.float().numpy()
        slices.append(Annotated(tokens, points.places, points.foreground, image))
    head.fit(slices)
    labels = np.concatenate([points.foreground for points in chosen.values()])
    annotated = [(source.dataset.name, item) for source, item in map(plan.sources.at, chosen)]
    facts = {
        "annotated_slices": len({(name, item.whole.id) for name, item in annotated}),
        "labelled_pixels": len(labels),
        "clicks": int(labels.sum()),
        "n_train": len(chosen),
        "n_val": 0,
        "val_slices": [],
        "train_slices": [f"{name}/{item.id}" for name, item in annotated],
        "trainable_parameters": sum(part.numel() for part in head.buffers()),
    }
    seconds = time.perf_counter() - started
    return Learned(Fit({}, (), 0, "fitted", seconds), list(chosen), [], facts)


def _points_of(
    source: Source, positions: Sequence[int], plan: TrainingPlan, random: np.random.Generator
) -> dict[int, Points]:
    """Points of each annotated slice of one dataset, by its position, or by those of its tiles."""
    places: dict[str, dict[int, Slice]] = {}
    for position in positions:
        item = source.slices[position - source.first]
        places.setdefault(item.whole.id, {})[position] = item
    wholes = [next(iter(tiles.values())).whole for tiles in places.values()]
    if plan.request.annotations is None:
        points = _drawn(source, wholes, plan.protocol, random)
    else:
        points = _given(wholes, plan, plan.request.annotations)
    return {
        position: own
        for name, found in points.items()
        for position, item in places[name].items()
        if len((own := _within(found, item)).places)
    }


def _within(points: Points, item: Slice) -> Points:
    """Those of a slice's points that are a tile's own, by shares of the tile's sides."""
    if item.tile is None:
        return points
    part, own = item.tile.part, item.tile.own
    pixels = points.places * item.whole.size
    first, last = (own.row, own.column), (own.row + own.rows, own.column + own.columns)
    inside = ((pixels >= first) & (pixels < last)).all(axis=1)
    places = (pixels[inside] - (part.row, part.column)) / (part.rows, part.columns)
    return Points(places, points.foreground[inside])


def _given(slices: Sequence[Slice], plan: TrainingPlan, path: Path) -> Mapping[str, Points]:
    """A user's own points, by the slices' names in the order of the dataset."""
    if len(plan.sources.items) > 1:
        raise UsageError(
            f"--annotations {path} are of one dataset, and {plan.sources.names} are several; "
            f"name one.",
            subject=path,
        )
    given = read_annotations(path, slices)
    return {item.id: given[item.id] for item in slices if item.id in given}


def _drawn(
    source: Source, slices: Sequence[Slice], protocol: Protocol, random: np.random.Generator
) -> Mapping[str, Points]:
    """Points that are drawn from masks, by the slices' names."""
    if protocol.from_slices > len(slices):
        raise UsageError(
            f"{source.dataset.name} has {len(slices)} training slices, and points were to be drawn "
            f"in {protocol.from_slices}; choose fewer --from-slices.",
            subject=protocol.from_slices,
        )
    order = [slices[place] for place in random.permutation(len(slices))]
    both = [item for item in order if _has_both(item)]
    if len(both) < protocol.from_slices:
        raise UsageError(
            f"{len(both)} training slices of {source.dataset.name} have foreground and background, "
            f"and points were to be drawn in {protocol.from_slices}; choose fewer --from-slices.",
            subject=protocol.from_slices,
        )
    return {
        item.id: _draw(source, item, place, protocol, random)
        for place, item in enumerate(both[: protocol.from_slices])
    }


def _draw(
    source: Source, item: Slice, place: int, protocol: Protocol, random: np.random.Generator
) -> Points:
    assert item.mask is not None  # noqa: S101 - training slices are labelled
    mask = source.dataset.classes.labels(read_mask(item.mask))
    if protocol.scribbles is not None:
        return drawn_scribbles(mask, protocol.scribbles, random)
    # Shared by the slices; the first ones have one more where the number cannot be divided.
    share, more = divmod(protocol.clicks or 1, protocol.from_slices)
    return drawn_clicks(mask, share + (place < more), random, item.id)


def _has_both(item: Slice) -> bool:
    return 0 < (item.foreground_pixels or 0) < item.height * item.width
