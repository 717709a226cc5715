"""The main job, function by function: extract, train, evaluate, measure.

Every function is quiet unless ``progress`` is given: an object with the methods of
:class:`emcache.progress.Reporter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from emcache.cache.alignment import Method
from emcache.cache.encoding import TokenType
from emcache.cache.extract import run_extractions
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_layers
from emcache.cache.recipe import LAST
from emcache.cluster.pool import open_pool
from emcache.data.dataset import Selection
from emcache.data.greys import find_grey_rule
from emcache.data.tiling import Tiling
from emcache.errors import UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.gap.outside import measure_familiarity as measure_outside
from emcache.gap.run import GapOptions
from emcache.gap.run import measure_gaps as measure_pairs
from emcache.library.runs import TrainedRun, scores_of
from emcache.library.workspace import Dataset, Workspace
from emcache.models.weights import PRETRAINED
from emcache.models.weights.short_names import read_short_names
from emcache.progress import Quiet, Reporter
from emcache.studies.file import read_study
from emcache.studies.sharing import carry_out_study
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol, find_protocol
from emcache.training.regimes import find_regime
from emcache.training.run import train as train_by_request
from emcache.training.sampling import Sampling


def extract(
    dataset: Dataset,
    backbone: str,
    *,
    split: str | None = None,
    weights: str = PRETRAINED,
    longest_edge: int | None = None,
    pixel_size_nm: float | None = None,
    dtype: TokenType = "float16",
    precision: str = "auto",
    layer: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    cluster: str = "none",
    progress: Reporter | None = None,
) -> FeatureSet:
    """Compute the patch tokens of a dataset's slices, or find them in the cache.

    Args:
        dataset: Whose labelled slices; all of them where none has a mask.
        backbone: Its name, as ``dinov2-small``.
        split: Only slices of this split.
        weights: ``pretrained``, ``random:SEED``, ``hf:REPOSITORY``, a short name or a file.
        longest_edge: Pixels that the longest edge is brought to; None for 1022, or for that of
            the tiles.
        pixel_size_nm: One physical scale instead, in nanometres a pixel.
        dtype: Of the stored tokens.
        precision: ``float32``, ``bfloat16`` or ``auto``.
        layer: Number of the block whose tokens are meant, from 1; None for the last.
        tile: Edge of the tiles that slices are cut into, in pixels as stored; None for whole ones.
        overlap: Pixels that they share with the next; None for an eighth of the edge.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        cluster: Workers that compute, as ``local:2`` or ``slurm:NAME`` (``docs/cluster.md``).
        progress: Receives progress.

    Raises:
        EmcacheError: Of the dataset, the backbone, its weights, the layer, the device or the
            workers.
    """
    wanted = LAST if layer is None else str(layer)
    options = ExtractOptions(
        backbone,
        weights,
        longest_edge,
        dtype,
        precision,
        device,
        pixel_size_nm=pixel_size_nm,
        tiling=Tiling.of(tile, overlap),
    )
    place, hearing = dataset.workspace.place, progress or Quiet()
    with open_pool(place, cluster, hearing, device, precision) as pool:
        if pool is not None:
            options = options.on_workers(pool.identity.device, pool.identity.precision)
        jobs = plan_layers(place, Selection(dataset.name, split), options, wanted, hearing)
        return run_extractions(jobs, hearing, pool)[0].feature_set


def train(
    datasets: Dataset | Sequence[Dataset],
    *,
    regime: str = "frozen",
    backbone: str | None = None,
    weights: str | None = None,
    longest_edge: int | None = None,
    protocol: Protocol | None = None,
    seeds: Sequence[int] = (0,),
    sampling: str = "natural",
    precision: str = "auto",
    device: str = "auto",
    accept_audit: bool = False,
    annotations: Path | None = None,
    progress: Reporter | None = None,
) -> list[TrainedRun]:
    """Train a head for each seed, on one dataset or on several together.

    Args:
        datasets: What to train on; their ``test`` splits are scored at the end.
        regime: ``frozen``, a head on cached tokens; ``lora``, adapters in the backbone with it;
            ``full``, all of the backbone; ``few-label``, a head that is fitted to a few points;
            ``supervised``, a U-Net that is trained from scratch; or ``zero-shot``, CLIPSeg with the
            protocol's ``prompt``.
        backbone: Its name; with cached tokens it may be left out where the cache has one kind.
        weights: As :func:`extract`; None for whatever the cache has, else pretrained ones.
        longest_edge: Pixels; None for whatever the cache has, else 1022.
        protocol: How; by default the study's, or the one of the regime: ``few-label`` or ``unet``.
        seeds: One run each.
        sampling: Of several datasets: ``natural``, or ``balanced``, as often from each.
        precision: ``float32``, ``bfloat16`` or ``auto``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        accept_audit: Train though the audit of a dataset failed; the scores say so.
        annotations: Your own points for ``few-label``, a file or a folder (``docs/few-label.md``);
            None to draw them from masks.
        progress: Receives progress.

    Returns:
        The runs, in the order of the seeds.

    Raises:
        AuditError: A dataset failed its audit.
        EmcacheError: Of the datasets, the features or the options.
    """
    chosen = [datasets] if isinstance(datasets, Dataset) else list(datasets)
    if not chosen:
        raise UsageError("no dataset to train on; expected one or more.")
    if sampling not in list(Sampling):
        raise UsageError(
            f"there is no sampling {sampling!r:.100}; known: {', '.join(Sampling)}.",
            subject=sampling,
        )
    request = TrainingRequest(
        datasets=[dataset.name for dataset in chosen],
        regime=regime,
        features=FeatureRequest(backbone, weights, longest_edge),
        protocol=protocol or find_protocol(find_regime(regime).protocol),
        seeds=tuple(seeds),
        sampling=Sampling(sampling),
        precision=precision,
        device=device,
        accept_audit=accept_audit,
        annotations=annotations,
    )
    workspace = chosen[0].workspace
    records = train_by_request(workspace.place, request, progress or Quiet())
    return [TrainedRun.open(workspace, record.id) for record in records]


def evaluate(
    run: TrainedRun,
    on: Dataset | Sequence[Dataset],
    *,
    split: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    progress: Reporter | None = None,
) -> pl.DataFrame:
    """Score a run on labelled slices of other datasets; the scores are kept as a record.

    Args:
        run: The run.
        on: The datasets.
        split: Only slices of this split; None for all that have a mask.
        weights: Where the backbone's weights are, if not where they were.
        device: Where to compute.
        progress: Receives progress and warnings.

    Returns:
        A row for each dataset and split: ``dataset``, ``split``, ``n_slices``, ``iou``.

    Raises:
        EmcacheError: A dataset without masks or such a split, or tokens that the run was not
            trained on.
    """
    chosen = [on] if isinstance(on, Dataset) else list(on)
    record = evaluate_run(
        run.workspace.place,
        run.id,
        [str(Selection(dataset.name, split)) for dataset in chosen],
        EvaluationOptions(weights, device),
        progress or Quiet(),
    )
    return scores_of(pl.read_parquet(record.file("slice_metrics.parquet"), glob=False))


def measure_gaps(
    selections: Sequence[Dataset | tuple[Dataset, str]],
    *,
    backbone: str | None = None,
    weights: str | None = None,
    longest_edge: int | None = None,
    run: TrainedRun | None = None,
    levels: Sequence[str] = ("slice",),
    by_class: bool = False,
    normalise: str = "none",
    align: Method = "none",
    align_to: Dataset | None = None,
    device: str = "auto",
    progress: Reporter | None = None,
) -> pl.DataFrame:
    """How far apart sets of slices lie in a backbone's feature space (``docs/gap.md``).

    Args:
        selections: Two or more datasets, or pairs of a dataset and one of its splits.
        backbone: Whose tokens; needed where the cache leaves a choice.
        weights: As :func:`extract`.
        longest_edge: Pixels.
        run: A run whose backbone is used, with its adapter where it has one.
        levels: ``slice``, ``cls`` and ``token``.
        by_class: Also foreground against foreground, and background against background.
        normalise: ``percentile``, ``clahe`` or ``histogram:DATASET``: what is done to the greys of
            all slices first; a run has a rule of its own.
        align: How tokens are aligned first, by the training slices of each dataset
            (``docs/alignment.md``).
        align_to: What ``coral`` and ``quantile`` lead to; None for the first dataset.
        device: Where to compute.
        progress: Receives progress and warnings.

    Returns:
        A row for each pair, level and class.

    Raises:
        EmcacheError: Fewer than two selections, features that leave a choice, or no masks.
    """
    pairs = [(item, None) if isinstance(item, Dataset) else item for item in selections]
    if not pairs:
        raise UsageError("a gap lies between two or more selections; found none.")
    place, reporter = pairs[0][0].workspace.place, progress or Quiet()
    greys = find_grey_rule(place, normalise, reporter)
    options = GapOptions(
        FeatureRequest(backbone, weights, longest_edge, greys=greys),
        None if run is None else run.id,
        tuple(levels),
        by_class,
        device,
        align,
        None if align_to is None else align_to.name,
    )
    rows, _ = measure_pairs(
        place,
        [str(Selection(dataset.name, split)) for dataset, split in pairs],
        options,
        reporter,
    )
    return pl.DataFrame(rows, infer_schema_length=None)


def measure_familiarity(
    run: TrainedRun,
    selections: Sequence[Dataset | tuple[Dataset, str]],
    *,
    weights: str | None = None,
    device: str = "auto",
    progress: Reporter | None = None,
) -> pl.DataFrame:
    """How far slices lie from those that a run was trained on (``docs/gap.md``).

    Args:
        run: A run.
        selections: Datasets, or pairs of a dataset and one of its splits; masks are not needed.
        weights: Where the backbone's weights are, if not where they were.
        device: Where to compute.
        progress: Receives progress, and a sentence for each selection.

    Returns:
        A row for each slice: ``distance``, ``p_value``, ``outside`` and others.

    Raises:
        EmcacheError: A run that keeps nothing to compare with, or slices that are not there.
    """
    pairs = [(item, None) if isinstance(item, Dataset) else item for item in selections]
    rows, _ = measure_outside(
        run.workspace.place,
        run.id,
        [str(Selection(dataset.name, split)) for dataset, split in pairs],
        progress or Quiet(),
        weights=weights,
        device=device,
    )
    return pl.DataFrame(rows, infer_schema_length=None)


def run_study(
    workspace: Workspace,
    path: str | Path,
    *,
    data: str | Path | None = None,
    weights: str | None = None,
    device: str = "auto",
    cluster: str = "none",
    progress: Reporter | None = None,
) -> pl.DataFrame:
    """Carry out what is left of a study (``docs/studies.md``).

    Args:
        workspace: Where.
        path: The study's file.
        data: Folder of the study's own datasets, if not that of its file.
        weights: In place of those that the study names.
        device: Where to compute.
        cluster: Workers that train, as :func:`extract`.
        progress: Receives progress.

    Returns:
        A row for each training and set of distances: ``what``, ``done_before``, ``done``,
        ``problem`` (null where there was none).

    Raises:
        StudyError: The study cannot be read, or its data cannot be trained on.
    """
    hearing = progress or Quiet()
    study = read_study(Path(path), read_short_names(workspace.place), weights)
    folder = None if data is None else Path(data)
    place = workspace.place
    with open_pool(place, cluster, hearing, device) as pool:
        results, gaps = carry_out_study(place, study, device, hearing, pool, folder)
    rows = [
        *((each.cell.words, each.done_before, each.trained, each.problem) for each in results),
        *((each.gap.words, each.done_before, each.measured, each.problem) for each in gaps),
    ]
    schema = {"what": pl.String, "done_before": pl.Int64, "done": pl.Int64, "problem": pl.String}
    return pl.DataFrame(rows, schema, orient="row")
