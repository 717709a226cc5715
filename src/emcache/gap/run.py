"""``gap``: the distances between all pairs of some selections, as one record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import polars as pl

from emcache.cache.alignment import Method, fit, moves_tokens
from emcache.cache.extract import embedding_table
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import UsageError
from emcache.evaluation.trained_run import TrainedRun, find_run
from emcache.gap.features import CLASSES, LEVELS, SelectedFeatures, project
from emcache.gap.frechet import Sample
from emcache.gap.measure import measure
from emcache.gap.sources import features_of, options_of_cache, options_of_run
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record, new_record
from emcache.storage.workspace import Workspace

KIND = "gap"
"""Kind of the records."""


@dataclass(frozen=True, slots=True)
class GapOptions:
    """What the user may choose about a measurement."""

    request: FeatureRequest = FeatureRequest()  # noqa: RUF009 - frozen
    run: str | None = None
    """A trained run whose backbone, with its adapter where it has one, makes the tokens."""
    levels: Sequence[str] = ("slice",)
    """Of :data:`emcache.gap.features.LEVELS`."""
    by_class: bool = False
    """Also token by token, foreground against foreground and background against background."""
    device: str = "auto"
    align: Method = "none"
    """How tokens are aligned first, by the statistics of each dataset's training slices."""
    align_to: str | None = None
    """Dataset that ``coral`` and ``quantile`` lead to; None for that of the first selection."""
    align_shrinkage: float = 0.0
    """As :attr:`emcache.training.protocol.Protocol.align_shrinkage`."""

    @property
    def aligned(self) -> str | None:
        """The alignment of tokens in words; None where there is none."""
        if self.align == "none":
            return None
        to = "" if self.align_to is None else f" to {self.align_to}"
        shrinkage = f", shrinkage {self.align_shrinkage:g}" if self.align_shrinkage else ""
        return f"{self.align}{to}{shrinkage}"


@dataclass(frozen=True, slots=True)
class GapPlan:
    """A measurement that is known in every detail, and not made yet."""

    options: GapOptions
    trained: TrainedRun | None
    """Whose backbone makes the tokens; None where it is as published."""
    jobs: Sequence[Job]
    """One for each selection."""
    domains: Mapping[str, Job]
    """The training slices that each dataset's tokens are aligned by, the reference first; nothing
    where they stay as they are."""

    @property
    def aligned(self) -> str | None:
        """What aligns pixels and tokens, in words, as rows hold it; None where nothing does."""
        greys = self.jobs[0].greys.label
        words = [greys] if greys != "none" else []
        if self.options.aligned is not None:
            words.append(self.options.aligned)
        return ", ".join(words) or None

    @property
    def key(self) -> str:
        """Hash of everything that a distance depends on but the machine."""
        return json_sha256(
            {
                "recipe": self.jobs[0].recipe.sha256(),
                "run": None if self.trained is None else self.trained.id,
                "levels": list(self.options.levels),
                "by_class": self.options.by_class,
                **({"align": self._align_key()} if self.domains else {}),
                "selections": [
                    [
                        str(job.selection),
                        job.dataset.classes.key() if self.options.by_class else None,
                        [
                            [s.id, s.pixel_sha256, s.mask_sha256 if self.options.by_class else None]
                            for s in job.slices
                        ],
                    ]
                    for job in self.jobs
                ],
            }
        )

    def _align_key(self) -> list[Any]:
        slices = [
            [name, [item.pixel_sha256 for item in job.slices]] for name, job in self.domains.items()
        ]
        return [self.options.aligned, slices]


def measure_gaps(
    workspace: Workspace, selections: Sequence[str], options: GapOptions, reporter: Reporter
) -> tuple[list[dict[str, Any]], Record]:
    """Measure every pair of some selections of slices; what is not in the cache is extracted.

    Args:
        workspace: Where.
        selections: ``NAME`` or ``NAME:SPLIT``, two or more.
        options: Which features, and what of them.
        reporter: Receives progress, and a warning of too few slices.

    Returns:
        A row for each pair, level and class, and the record that keeps them.

    Raises:
        UsageError: Fewer than two selections, one of them twice, or one of a single slice.
        StoreError: The cache leaves several choices, or features are not finite.
        DatasetError: No such dataset or split; a distance by class without masks.
    """
    return carry_out(workspace, plan_gaps(workspace, selections, options, reporter), reporter)


def plan_gaps(
    workspace: Workspace, selections: Sequence[str], options: GapOptions, reporter: Reporter
) -> GapPlan:
    """Find out what a measurement needs; nothing is extracted.

    Args:
        workspace: Where.
        selections: ``NAME`` or ``NAME:SPLIT``, two or more.
        options: Which features, and what of them.
        reporter: Receives progress, where files must be read.

    Raises:
        UsageError: Fewer than two selections, one of them twice, or one of a single slice.
        StoreError: The cache leaves several choices.
        DatasetError: No such dataset or split.
    """
    chosen = [Selection.parse(text) for text in selections]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise UsageError(
            f"a gap lies between two or more different selections of slices; found "
            f"{', '.join(selections) or 'none'}: name each once.",
            subject=tuple(selections),
        )
    unknown = [level for level in options.levels if level not in LEVELS]
    if unknown:
        raise UsageError(
            f"there is no level {unknown[0]!r}; known: {', '.join(LEVELS)}.", subject=unknown[0]
        )
    trained = None if options.run is None else find_run(workspace, options.run)
    extraction = (
        options_of_run(trained, options.request.weights, options.device)
        if trained is not None
        else options_of_cache(workspace, chosen, options.request, options.device, reporter)
    )
    jobs = [plan_extraction(workspace, item, extraction, reporter) for item in chosen]
    for job in jobs:
        if len(job.slices) < 2:
            raise UsageError(
                f"{job.selection} has one slice; a distance needs at least two on each side: "
                f"choose a larger selection.",
                subject=str(job.selection),
            )
    domains = _plan_domains(workspace, jobs, extraction, options, reporter)
    if options.align in ("coral", "quantile"):
        options = replace(options, align_to=next(iter(domains)))
    return GapPlan(options, trained, jobs, domains)


def _plan_domains(
    workspace: Workspace,
    jobs: Sequence[Job],
    extraction: ExtractOptions,
    options: GapOptions,
    reporter: Reporter,
) -> dict[str, Job]:
    """The training slices of every dataset that is measured, the reference first."""
    if options.align == "none":
        return {}
    if not moves_tokens(options.align) or "cls" in options.levels:
        what = "level cls" if "cls" in options.levels else options.align
        raise UsageError(
            f"{what} has no distance after alignment, which is of patch tokens; choose another "
            f"level, and standardise, whiten, coral or quantile.",
            subject=what,
        )
    names = [options.align_to] if options.align_to else []
    names += [job.selection.dataset for job in jobs]
    return {
        name: plan_extraction(workspace, Selection(name, "train"), extraction, reporter)
        for name in dict.fromkeys(names)
    }


def _align(
    features: Sequence[SelectedFeatures], plan: GapPlan, reporter: Reporter
) -> list[SelectedFeatures]:
    """Each selection with the transform of its dataset."""
    moments = {}
    for name, job in plan.domains.items():
        train = features_of(job, reporter)
        moments[name] = train.moments()
    reference, options = next(iter(moments.values())), plan.options
    fitted = {pixels for job in plan.domains.values() for pixels in _pixels(job)}
    aligned = []
    for item in features:
        if fitted & _pixels(item.job):
            reporter.say(
                f"Note: the alignment of {item.name} is fitted to slices that are measured, too, "
                f"and brings these nearer than new ones; measure splits without training slices."
            )
        own = moments[item.job.selection.dataset]
        transform = fit(options.align, own, reference, options.align_shrinkage)
        aligned.append(replace(item, transform=transform))
    return aligned


def _pixels(job: Job) -> set[str]:
    return {item.pixel_sha256 for item in job.slices}


def carry_out(
    workspace: Workspace, plan: GapPlan, reporter: Reporter
) -> tuple[list[dict[str, Any]], Record]:
    """Measure what was planned.

    Args:
        workspace: Where.
        plan: What.
        reporter: Receives progress, and a warning of too few slices.

    Returns:
        A row for each pair, level and class, and the record that keeps them.

    Raises:
        StoreError: Features that are not finite.
        DatasetError: A distance by class without masks.
    """
    options = plan.options
    features = [features_of(job, reporter) for job in plan.jobs]
    if plan.domains:
        features = _align(features, plan, reporter)
    facts = {**_facts(plan.jobs[0], plan.trained), "align": plan.aligned}
    if is_untrained(facts["weights"]):
        reporter.say(describe_untrained(facts["weights"]))
    with new_record(workspace.runs, KIND) as draft:
        levels = _Levels(features, options)
        rows = _measure_pairs(features, levels, facts, reporter)
        _warn_of_few(rows, reporter)
        draft.config = {
            **facts,
            "selections": [str(job.selection) for job in plan.jobs],
            "levels": list(options.levels),
            "gap_key": plan.key,
        }
        draft.write_table("gaps.parquet", pl.DataFrame(rows, infer_schema_length=None))
        draft.write_table("gap_points.parquet", project(features))
        if levels.embeddings:
            draft.write_table("embeddings.parquet", pl.concat(levels.embeddings))
        record = draft.finish()
    return rows, record


def _measure_pairs(
    features: Sequence[SelectedFeatures],
    levels: _Levels,
    facts: Mapping[str, Any],
    reporter: Reporter,
) -> list[dict[str, Any]]:
    rows = []
    pairs = list(combinations(range(len(features)), 2))
    total = len(pairs) * len(levels.names)
    with reporter.task("Measuring gaps", total, "distances") as task:
        for level, name_of_class, samples in levels:
            for a, b in pairs:
                names = (features[a].name, features[b].name)
                bare = [features[i].name for i in (a, b) if len(samples[i]) < 2]
                if bare:
                    # Whole slices are counted before anything is measured; only tokens can lack.
                    reporter.say(
                        f"{bare[0]} has fewer than two {name_of_class} tokens at this size: no "
                        f"distance of {name_of_class} from {names[0]} to {names[1]}."
                    )
                else:
                    gap = measure(samples[a], samples[b], names)
                    key = {"domain_a": names[0], "domain_b": names[1], **facts}
                    key |= {"level": level, "class": name_of_class}
                    rows.append({**key, **gap.as_dict()})
                task.advance()
    return rows


class _Levels:
    """Samples of every selection, level by level."""

    def __init__(self, features: Sequence[SelectedFeatures], options: GapOptions) -> None:
        self._features = features
        self.names: list[tuple[str, str | None]] = [(level, None) for level in options.levels]
        if options.by_class:
            self.names += [("token", name) for name in CLASSES]
        self.embeddings: list[pl.DataFrame] = []

    def __iter__(self) -> Iterator[tuple[str, str | None, list[Sample]]]:
        for level, name_of_class in self.names:
            if level == "token":
                yield level, name_of_class, self._tokens(name_of_class)
            else:
                yield level, None, [item.slices(level) for item in self._features]

    def _tokens(self, name_of_class: str | None) -> list[Sample]:
        samples = []
        for item in self._features:
            sample, tokens = item.tokens(name_of_class)
            samples.append(sample)
            if tokens:
                self.embeddings.append(
                    embedding_table(
                        item.job.dataset.name,
                        [token.slice_id for token in tokens],
                        "token",
                        sample.vectors,
                        name_of_class=name_of_class,
                        places=[(token.row, token.col) for token in tokens],
                    )
                )
        return samples


def _facts(job: Job, trained: TrainedRun | None) -> dict[str, Any]:
    """What identifies the features of every row."""
    description = job.description()
    return {
        "backbone": description["backbone"],
        "weights": description["weights"],
        "longest_edge": description["longest_edge"],
        "pixel_size_nm": description["pixel_size_nm"],
        "regime": "frozen" if job.adapter is None else job.adapter.regime,
        "run_id": None if trained is None else trained.id,
        "recipe_sha256": job.recipe.sha256(),
    }


def _warn_of_few(rows: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    few = [row for row in rows if min(row["n_a"], row["n_b"]) < row["dim"]]
    if few:
        least, dim = min(min(row["n_a"], row["n_b"]) for row in few), few[0]["dim"]
        reporter.say(
            f"Warning: N is below D ({least} vectors of {dim} numbers): the covariances are not of "
            f"full rank, and the distance is too high by an amount that falls with N; compare it "
            f"with the yardsticks, which have one N."
        )
    if any(row["probe_p_value"] is None for row in rows):
        reporter.say("Too few slices for the linear probe: it needs four blocks on each side.")
