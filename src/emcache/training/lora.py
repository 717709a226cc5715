"""Training LoRA adapters with a head: the backbone runs at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emcache.cache.labels import label_key
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import UsageError
from emcache.models.device import pick_device, pick_layout, pick_precision
from emcache.models.heads import Segmenter, build_head
from emcache.models.loading import load_backbone
from emcache.progress import Quiet, Reporter
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.batches import PixelReader, SizedSlice
from emcache.training.model import Model
from emcache.training.run import Deliver, audit_sources, check_grids, train_runs
from emcache.training.sampling import check_sampling
from emcache.training.setting import Data, Setting, TrainingOptions
from emcache.training.sources import training_sources


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """Which backbone, with which weights, and the size that slices are brought to."""

    name: str
    weights: str = "pretrained"
    longest_edge: int = 1022


@dataclass(frozen=True, slots=True)
class DeviceSavings:
    """Ways to need less device memory; none changes the result beyond rounding."""

    accumulate: int = 1
    """The backbone takes a step's slices in so many parts."""
    checkpoint: bool = False
    """Keep only each block's input, and compute the activations again for the gradient."""

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise UsageError(
                f"--accumulate {self.accumulate} is not a number of parts; expected 1 or more.",
                subject=self.accumulate,
            )


def train_lora(
    workspace: Workspace,
    datasets: Sequence[str],
    choice: BackboneChoice,
    options: TrainingOptions,
    savings: DeviceSavings,
    reporter: Reporter,
    deliver: Deliver | None = None,
) -> list[Record]:
    """Train one adapter and head for each seed.

    Args:
        workspace: Where.
        datasets: Names of the datasets to train on.
        choice: Which backbone and size.
        options: How; rank, alpha and targets stand in the protocol.
        savings: What to compute twice to need less memory.
        reporter: Receives progress.
        deliver: Gets the records when all are there; what a killed command goes on from is kept
            until it returns.

    Returns:
        The records, in the order of the seeds. A record is kept as soon as its run ends.

    Raises:
        EmcacheError: Of the dataset, the backbone, the adapter's targets or the options.
    """
    setting, jobs = plan_lora_training(workspace, datasets, choice, options, reporter)
    audits = audit_sources(workspace, setting, reporter)
    protocol, sources = setting.options.protocol, setting.data.sources
    check_grids(sources, [[place.grid for place in job.places] for job in jobs])
    slices = [
        SizedSlice(item, place.grid, source.dataset.classes)
        for source, job in zip(sources.items, jobs, strict=True)
        for item, place in zip(source.slices, job.places, strict=True)
    ]
    spec, weights = jobs[0].spec, jobs[0].weights
    classes = len(sources.class_names)
    # PEFT takes seconds to import; who trains heads alone, or plans a study, need not wait for it.
    from emcache.models.lora import attach_adapter

    # What is left out of a file is said once, not for each seed.
    hearing: list[Reporter] = [reporter]

    def build(seed: int) -> Model:
        hears = hearing.pop() if hearing else Quiet()
        backbone = load_backbone(spec, weights, setting.device, hears)
        targets = protocol.lora_targets.split("+")
        adapter = attach_adapter(backbone, protocol.lora_rank, protocol.lora_alpha, targets, seed)
        if savings.checkpoint:
            backbone.checkpoint_activations()
        head = build_head(protocol.head, spec.dim, seed, classes, pick_layout(setting.device))
        return Model(Segmenter(backbone, head, savings.accumulate), head, adapter)

    extra = {**audits, "accumulate": savings.accumulate, "checkpoint": savings.checkpoint}
    reader = PixelReader(slices, spec.patch)
    return train_runs(workspace, setting, reader, build, extra, reporter, deliver)


def plan_lora_training(
    workspace: Workspace,
    datasets: Sequence[str],
    choice: BackboneChoice,
    options: TrainingOptions,
    reporter: Reporter,
) -> tuple[Setting, tuple[Job, ...]]:
    """Resolve a training without training anything.

    Returns:
        The setting, and for each source what an extraction of its tokens would be: backbone,
        weights, sizes and the fingerprint that identifies them.

    Raises:
        EmcacheError: Of the dataset, the backbone or the options.
    """
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    check_sampling(options.sampling, len(datasets), options.protocol.batch)
    sources = training_sources(workspace, datasets, reporter)
    tokens = ExtractOptions(
        choice.name,
        choice.weights,
        choice.longest_edge,
        # Tokens go to the head as they are computed.
        dtype="float32",
        precision=precision,
        device=options.device,
        pixel_size_nm=options.protocol.pixel_size_nm,
    )
    jobs = tuple(
        plan_extraction(workspace, Selection(source.dataset.name, None), tokens, reporter)
        for source in sources.items
    )
    data = Data(
        sources,
        jobs[0].description(),
        jobs[0].recipe.identity(),
        tuple(job.fingerprint for job in jobs),
        tuple(
            label_key(
                source.slices,
                source.dataset.classes,
                job.recipe.preprocessing.identity(),
                [place.grid for place in job.places],
            )
            for source, job in zip(sources.items, jobs, strict=True)
        ),
        (),
    )
    return Setting("lora", data, options, device, precision), jobs
