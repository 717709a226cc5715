"""What a run changes in a backbone, and keeps: a LoRA adapter, or all of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file

from emcache.errors import AdapterError, WeightsError
from emcache.models.backbones.base import BackboneModule
from emcache.models.lora_files import ADAPTER_FOLDER, adapter_sha256, check_adapter_config
from emcache.models.weights import read_weights_file
from emcache.storage.hashing import file_sha256

BACKBONE_FOLDER = "backbone"
"""Where a record keeps a backbone that was trained as a whole."""
_WHOLE_FILE = "backbone.safetensors"


@dataclass(frozen=True, slots=True)
class TunedChoice:
    """What a run changed in its backbone, for tokens that are to go through it."""

    folder: Path
    """Where it is saved: within the run's record."""
    run_id: str
    """The run that trained it."""
    sha256: str
    """Of its bytes."""

    @property
    def regime(self) -> str:
        """``lora`` or ``full``."""
        return "full" if self.folder.name == BACKBONE_FOLDER else "lora"


@dataclass(frozen=True, slots=True)
class WholeBackbone:
    """A backbone all of whose weights are trained."""

    folder_name: ClassVar[str] = BACKBONE_FOLDER
    backbone: BackboneModule

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.backbone.parameters() if p.requires_grad)

    def facts(self) -> Mapping[str, Any]:
        """What a record says of it."""
        return {"backbone_parameters": self.parameters}

    def save(self, folder: Path) -> None:
        """Write its weights, under the names of its own library."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.backbone.model.state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / _WHOLE_FILE)


def unfreeze(backbone: BackboneModule) -> WholeBackbone:
    """Let all weights of a backbone be trained that its tokens depend on; changed in place."""
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(name not in backbone.unneeded)
    return WholeBackbone(backbone)


def find_tuned(record: Path, run_id: str) -> TunedChoice:
    """What a run changed in its backbone, hashed.

    Args:
        record: Folder of its record.
        run_id: The run.

    Raises:
        AdapterError: The record holds neither an adapter nor a backbone.
    """
    whole = record / BACKBONE_FOLDER
    folder = whole if whole.is_dir() else record / ADAPTER_FOLDER
    return TunedChoice(folder, run_id, _sha256(folder))


def load_tuned(backbone: BackboneModule, tuned: TunedChoice) -> None:
    """Bring into a backbone what a run changed in it; it is in inference mode then.

    Raises:
        AdapterError: An adapter that does not fit, or one that changed since it was hashed.
        WeightsError: Weights that cannot be read, or those of another backbone.
    """
    if tuned.regime == "lora":
        check_adapter_config(tuned.folder)
        # PEFT takes seconds to import, and only adapters need it.
        from emcache.models.lora import load_adapter

        load_adapter(backbone, tuned.folder)
    else:
        _load_whole(backbone, tuned.folder / _WHOLE_FILE)
    if _sha256(tuned.folder) != tuned.sha256:
        raise AdapterError(
            f"what run {tuned.run_id} changed in its backbone was written again while it was in "
            f"use; run the command again.",
            subject=tuned.folder,
        )
    backbone.eval().requires_grad_(False)


def _load_whole(backbone: BackboneModule, path: Path) -> None:
    state = read_weights_file(path)
    try:
        backbone.model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise WeightsError(
            f"the weights in {path} are not those of {backbone.spec.name}; restore the run's "
            f"folder from a copy, or train it again.",
            subject=path,
        ) from error


def _sha256(folder: Path) -> str:
    if folder.name == ADAPTER_FOLDER:
        return adapter_sha256(folder)
    try:
        return file_sha256(folder / _WHOLE_FILE)
    except OSError as error:
        raise AdapterError(
            f"{folder} holds no backbone ({error.strerror}); expected {_WHOLE_FILE}: restore the "
            f"run's folder from a copy, or train it again.",
            subject=folder,
        ) from error
