"""What all benchmarks of one command share, and the made-up data they work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from emcache.cache.extract import run_extraction
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.progress import Quiet, Reporter
from emcache.storage.workspace import init_workspace
from emcache.training.batches import LabelledFeatures
from emcache_bench.synthetic import STYLES, write_domain
from emcache_bench.timing import Rounds

BACKBONE = "dinov2-small"
"""Backbone of every benchmark that runs one; its weights are random, which costs the same time."""
WEIGHTS = "random:0"


@dataclass(frozen=True, slots=True)
class Setting:
    """How to measure."""

    folder: Path
    """Scratch space."""
    device: torch.device
    quick: bool
    """About three minutes in all: what takes long at smaller sizes or not at all."""
    reporter: Reporter

    def rounds(self, whole: int = 7, most: int = 30) -> Rounds:
        """Rounds that count.

        Args:
            whole: The least number, unless it must be quick.
            most: How many are taken while a verdict is open.
        """
        return Rounds(3 if self.quick else whole, most)


@dataclass(frozen=True)
class MadeUpData:
    """A made-up dataset in a workspace of its own."""

    folder: Path
    slices: int
    side: int
    """Rows and columns of a slice."""
    edge: int
    """Size that slices are brought to."""
    device: torch.device
    backbone: str = BACKBONE
    batch: int = 4
    """Slices in one forward pass."""

    @cached_property
    def job(self) -> Job:
        """The extraction of all slices; nothing is computed yet."""
        workspace, _ = init_workspace(self.folder / "workspace")
        write_domain(self.folder / "slices", STYLES["sharp"], self.slices, self.side, seed=0)
        places = {"images": "images/*.png", "masks": "masks/*.png", "split": ["random:0.5:0"]}
        add_dataset(workspace, "made-up", "folder", self.folder / "slices", places, Quiet())
        options = ExtractOptions(
            self.backbone, WEIGHTS, self.edge, device=str(self.device), batch=self.batch
        )
        return plan_extraction(workspace, Selection("made-up", None), options, Quiet())

    @cached_property
    def features(self) -> LabelledFeatures:
        """Tokens and labels, extracted now if need be."""
        feature_set = run_extraction(self.job, Quiet()).feature_set
        classes = self.job.dataset.classes
        labels = ensure_labels(feature_set, self.job.slices, classes, Quiet())
        return LabelledFeatures(feature_set, labels)
