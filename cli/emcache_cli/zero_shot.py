"""``emcache zero-shot``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from emcache_cli.delivery import OutputOptions, deliver_training
from emcache_cli.groups import with_groups
from emcache_cli.options import AcceptAuditOption, NormaliseOption, OverlapOption, TileOption
from emcache_cli.training_options import ComputeOptions, DatasetsArgument
from emcache_cli.unet import SizeOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PromptOptions:
    """What to look for, and with which model."""

    PANEL: ClassVar[str] = "Prompt"

    prompt: Annotated[str, typer.Option(metavar="TEXT", help="As mitochondria.")]
    weights: Annotated[
        str,
        typer.Option(
            metavar="pretrained|hf:REPOSITORY|FOLDER", help="A CLIPSeg that transformers saved."
        ),
    ] = "pretrained"
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability above which a pixel is foreground. (default: 0.5)"),
    ] = None
    normalise: NormaliseOption = None
    tile: TileOption = None
    overlap: OverlapOption = None
    accept_audit: AcceptAuditOption = False


@with_groups
def zero_shot(
    datasets: DatasetsArgument,
    prompt: PromptOptions,
    sizes: SizeOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> None:
    """Segment by a text prompt, without a label, and score that on the test slices (CLIPSeg)."""
    from emcache.cache.find import FeatureRequest
    from emcache.training.batches import Residency
    from emcache.training.plan import TrainingRequest
    from emcache.training.protocol import find_protocol

    protocol = find_protocol("zero-shot").with_changes(
        {
            "prompt": prompt.prompt,
            "threshold": prompt.threshold,
            "normalise": prompt.normalise,
            "pixel_size_nm": sizes.pixel_size,
            "tile": prompt.tile,
            "overlap": prompt.overlap,
        }
    )
    request = TrainingRequest(
        datasets=datasets,
        regime="zero-shot",
        features=FeatureRequest(
            weights=prompt.weights,
            longest_edge=sizes.longest_edge,
            pixel_size_nm=sizes.pixel_size,
        ),
        protocol=protocol,
        resident=Residency(computing.resident),
        device=computing.device,
        precision=computing.precision,
        save_predictions=output.save_predictions,
        accept_audit=prompt.accept_audit,
    )
    deliver_training(request, output)
