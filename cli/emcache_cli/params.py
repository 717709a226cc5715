"""``emcache params``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import FormatOption


def params(
    backbone: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one; may be repeated. (default: the study's)"),
    ] = None,
    output_format: FormatOption = None,
) -> None:
    """Count what the study trains: head alone, and head with LoRA. No weights are needed.

    In millions, and as a percentage of backbone and head together.
    """
    from emcache.models.backbones.registry import STUDY_BACKBONES, find_backbone
    from emcache.models.heads import count_study_parameters
    from emcache_cli.console import show_rows

    specs = [find_backbone(name) for name in backbone] if backbone else STUDY_BACKBONES
    show_rows([count.as_row() for count in count_study_parameters(specs)], output_format)
