"""What a training run trains, and how a record keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import save_file
from torch import nn

from emcache.models.heads import Head, count_parameters
from emcache.models.lora_files import ADAPTER_FOLDER
from emcache.storage.records import Draft

HEAD_FILE = "head.safetensors"
"""Where a record keeps its head."""


@runtime_checkable
class Adapter(Protocol):
    """What a record asks of :class:`emcache.models.lora.Adapter`, without importing PEFT."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the adapted layers in the backbone's model."""

    @property
    def parameters(self) -> int:
        """Number of trainable values."""

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's own format."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is trained."""

    module: nn.Module
    """From a batch's inputs and a size to logits."""
    head: Head
    """The part of it that is the head."""
    adapter: Adapter | None = None
    """The backbone's adapter, in the LoRA regime."""

    def save(self, draft: Draft) -> None:
        """Write head and adapter into a record."""
        state = {name: t.detach().cpu().contiguous() for name, t in self.head.state_dict().items()}
        save_file(state, draft.path(HEAD_FILE))
        if self.adapter is not None:
            self.adapter.save(draft.path(ADAPTER_FOLDER))

    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        head = count_parameters(self.head)
        facts: dict[str, Any] = {"head_parameters": head, "trainable_parameters": head}
        if self.adapter is not None:
            facts["adapter_parameters"] = self.adapter.parameters
            facts["adapted_modules"] = list(self.adapter.modules)
            facts["trainable_parameters"] += self.adapter.parameters
        return facts
