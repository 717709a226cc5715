"""LoRA adapters on a frozen backbone, by PEFT and in PEFT's own format.

The study (arXiv 2602.08505) adapts the packed ``qkv`` and the output projection of every block's
attention, with rank 16 and alpha 32, and nothing else: 6 r D parameters a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft import set_peft_model_state_dict as load_into
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from emcache.errors import AdapterError
from emcache.models.backbones.base import BackboneModule
from emcache.models.lora_files import (
    ADAPTER_FOLDER,
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_adapter_config,
)

_NAMED_KEYS = 3
# What PEFT raises where a configuration's values or layers are none of its own.
_UNREADABLE = (
    AttributeError,
    ImportError,
    KeyError,
    re.error,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that sits in a backbone; the backbone's forward pass goes through it."""

    folder_name: ClassVar[str] = ADAPTER_FOLDER
    peft_model: PeftModel
    """PEFT's wrapper of the same model."""
    modules: tuple[str, ...]
    """Names of the adapted layers in the backbone's model."""

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.peft_model.parameters() if p.requires_grad)

    def facts(self) -> Mapping[str, Any]:
        """What a record says of it."""
        return {"adapter_parameters": self.parameters, "adapted_modules": list(self.modules)}

    def save(self, folder: Path) -> None:
        """Write the adapter so that ``PeftModel.from_pretrained`` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.peft_model.peft_config["default"].save_pretrained(str(folder))
        state = get_peft_model_state_dict(self.peft_model, save_embedding_layers=False)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / WEIGHTS_FILE)


def attach_adapter(
    backbone: BackboneModule,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    seed: int,
    last_blocks: int | None = None,
) -> Adapter:
    """Put a new adapter on a backbone, whose own weights are frozen by it.

    LoRA starts at zero: until the first step the tokens are those of the bare backbone.

    Args:
        backbone: Changed in place.
        rank: r, the rank of every update.
        alpha: Updates are scaled by alpha / r.
        targets: Names of layers within a block, as ``attn.qkv``.
        seed: Of the adapter's first weights.
        last_blocks: How many of the last blocks are adapted; None for all. No gradient goes
            through those before them.

    Raises:
        AdapterError: A target that is not a linear layer of the blocks, or that no forward pass
            goes through, or more blocks than there are.
    """
    backbone.make_adaptable()
    _check_targets(backbone, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=_pattern(backbone, targets, last_blocks),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter = _wrap(backbone, config)
    _check_alive(backbone, adapter)
    return adapter


def load_adapter(backbone: BackboneModule, folder: Path) -> Adapter:
    """Put a saved adapter on a backbone, changed in place.

    Raises:
        AdapterError: The folder holds no adapter, one with settings that are not read, or one for
            another backbone; the first names that differ are given.
    """
    check_adapter_config(folder)
    backbone.make_adaptable()
    try:
        config = LoraConfig.from_pretrained(str(folder))
        state = load_file(folder / WEIGHTS_FILE)
    except (*_UNREADABLE, OSError, SafetensorError) as error:
        raise AdapterError(
            f"{folder} holds no LoRA adapter ({type(error).__name__}); expected {CONFIG_FILE} and "
            f"{WEIGHTS_FILE} as PEFT saves them.",
            subject=folder,
        ) from error
    try:
        adapter = _wrap(backbone, config)
    except _UNREADABLE as error:
        raise _foreign(folder, backbone, "it adapts layers that are not there") from error
    expected = get_peft_model_state_dict(adapter.peft_model, save_embedding_layers=False)
    differing = [
        name
        for name in sorted(expected.keys() | state.keys())
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    ]
    if differing:
        more = len(differing) - _NAMED_KEYS
        names = ", ".join(differing[:_NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")
        raise _foreign(folder, backbone, f"these do not fit: {names}")
    load_into(adapter.peft_model, state)
    return adapter


def _wrap(backbone: BackboneModule, config: LoraConfig) -> Adapter:
    peft_model = get_peft_model(backbone.model, config)
    modules = tuple(name for name, layer in backbone.model.named_modules() if _is_adapted(layer))
    return Adapter(peft_model, modules)


def _is_adapted(layer: nn.Module) -> bool:
    return isinstance(layer, LoraLayer)


def _pattern(backbone: BackboneModule, targets: Sequence[str], last_blocks: int | None) -> str:
    """The adapted layers as a pattern of their whole names, which is what PEFT matches."""
    names = {module: name for name, module in backbone.model.named_modules()}
    blocks = re.escape(names[backbone.blocks])
    numbers = [name for name, _ in backbone.blocks.named_children()]
    if last_blocks is not None and last_blocks > len(numbers):
        raise AdapterError(
            f"{backbone.spec.name} has {len(numbers)} blocks, and the last {last_blocks} were to "
            f"be adapted; choose a smaller --last-blocks.",
            subject=last_blocks,
        )
    chosen = r"\d+" if last_blocks is None else f"({'|'.join(numbers[-last_blocks:])})"
    return rf"{blocks}\.{chosen}\.({'|'.join(re.escape(target) for target in targets)})"


def _check_targets(backbone: BackboneModule, targets: Sequence[str]) -> None:
    present = _linear_layers(backbone)
    missing = [target for target in targets if target not in present]
    if missing or not targets:
        raise AdapterError(
            f"no block of {backbone.spec.name} has a linear layer "
            f"{missing[0] if missing else 'to adapt'!r}; its blocks have {', '.join(present)}: "
            f"choose among these with --targets.",
            subject=tuple(missing),
        )


def _linear_layers(backbone: BackboneModule) -> list[str]:
    """Names of the linear layers within a block, of any block, in order."""
    return list(
        dict.fromkeys(
            name
            for block in backbone.blocks.children()
            for name, layer in block.named_modules()
            if isinstance(layer, nn.Linear)
        )
    )


def _check_alive(backbone: BackboneModule, adapter: Adapter) -> None:
    """Refuse adapters that no forward pass goes through: they would be counted and never learn."""
    called: set[nn.Module] = set()

    def note(layer: nn.Module, *_: Any) -> None:
        called.add(layer)

    layers = {name: backbone.model.get_submodule(name) for name in adapter.modules}
    hooks = [layer.register_forward_hook(note) for layer in layers.values()]
    device = next(backbone.parameters()).device
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 2 * backbone.patch, 2 * backbone.patch, device=device))
    for hook in hooks:
        hook.remove()
    dead = [name for name, layer in layers.items() if layer not in called]
    if dead:
        raise AdapterError(
            f"{backbone.spec.name} never calls its layer {dead[0]} ({len(dead)} of {len(layers)} "
            f"targets), so an adapter on it could not learn; choose other --targets.",
            subject=tuple(dead),
        )


def _foreign(folder: Path, backbone: BackboneModule, why: str) -> AdapterError:
    return AdapterError(
        f"the adapter in {folder} is for another backbone than {backbone.spec.name}: {why}; choose "
        f"the backbone that it was trained on.",
        subject=folder,
    )
