"""What the runs of one training command share: data, options, device, and their fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from emcache.models.device import Precision
from emcache.storage.hashing import json_sha256
from emcache.training.batches import Residency
from emcache.training.protocol import Protocol
from emcache.training.sampling import Sampling
from emcache.training.sources import Sources


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What the user may choose about a training, beside the protocol."""

    seeds: Sequence[int]
    protocol: Protocol
    sampling: Sampling = Sampling.NATURAL
    resident: Residency = Residency.AUTO
    device: str = "auto"
    precision: str = "auto"
    save_predictions: bool = False
    accept_audit: bool = False
    """Train though the audit of a dataset failed."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a training reads, by the hashes that identify it."""

    sources: Sources
    description: Mapping[str, Any]
    """Backbone, weights and sizes, the same for all sources."""
    recipe: Mapping[str, Any]
    """Everything that decides a token."""
    fingerprints: tuple[str, ...]
    """Of the (bare) backbone's tokens of each source."""
    label_keys: tuple[str, ...]
    """Of each source's labels."""
    feature_sets: tuple[str, ...]
    """Names of the feature sets, where tokens come from the cache."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that the runs of one command share."""

    regime: str
    """``frozen`` or ``lora``."""
    data: Data
    options: TrainingOptions
    device: torch.device
    precision: Precision

    @property
    def kind(self) -> str:
        """Kind of the records."""
        return {"frozen": "train-head", "lora": "train-lora"}[self.regime]

    def fingerprint(self, seed: int | None) -> str:
        """Key over everything that could change the result but the machine.

        Args:
            seed: Of the run; None for what the runs of all seeds share.
        """
        return json_sha256(
            {
                "regime": self.regime,
                "features": self.data.fingerprints,
                "labels": self.data.label_keys,
                # Names and splits decide which slices train, and what their scores are called.
                "slices": [
                    [source.dataset.first_name, *((item.id, item.split) for item in source.slices)]
                    for source in self.data.sources.items
                ],
                "protocol": self.options.protocol.as_dict(),
                "sampling": self.options.sampling,
                "precision": self.precision,
                "seed": seed,
            }
        )
