"""Trained runs: found by their names, checked against what is there today, and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from safetensors.torch import load_file

from emcache.adapters import load_adapter
from emcache.backbone_loading import load_backbone
from emcache.backbones.module import BackboneModule
from emcache.backbones.registry import BackboneSpec, find_backbone
from emcache.classes import ClassRule, class_rule
from emcache.devices import Precision
from emcache.errors import RecordError
from emcache.fingerprint import TokenType
from emcache.grey import GreyWindow
from emcache.heads import Head, build_head
from emcache.protocol import Protocol
from emcache.records import Record, list_record_ids, read_record
from emcache.training_run import ADAPTER_FOLDER, HEAD_FILE
from emcache.weights import Weights
from emcache.workspace import Workspace

_KINDS = ("train-head", "train-lora")
_NAMED_RUNS = 5


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished run of either regime, with what its record says of it."""

    record: Record
    protocol: Protocol

    @property
    def id(self) -> str:
        """Identifier of the record."""
        return self.record.id

    @property
    def config(self) -> Mapping[str, Any]:
        """The record's own values."""
        return self.record.config

    @property
    def is_lora(self) -> bool:
        """Whether the run has an adapter of its own."""
        return bool(self.config["regime"] == "lora")

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Everything that decided the tokens that its head was trained on."""
        recipe: Mapping[str, Any] = self.config["recipe"]
        return recipe

    @property
    def spec(self) -> BackboneSpec:
        """Its backbone."""
        return find_backbone(self.config["backbone"])

    @property
    def classes(self) -> ClassRule:
        """The classes that its head tells apart; records of older versions know only two."""
        values = self.config.get("classes")
        return class_rule(None, None if values is None else dict(values))

    @property
    def grey_window(self) -> GreyWindow | None:
        """The one that all the slices it was trained on were scaled by."""
        window = self.config.get("grey_window")
        return None if window is None else GreyWindow(*window)

    @property
    def precision(self) -> Precision:
        """Arithmetic of the training."""
        return Precision(self.config["precision"])

    @property
    def token_precision(self) -> Precision:
        """Arithmetic of the backbone."""
        return Precision(self.recipe["precision"])

    @property
    def token_type(self) -> TokenType:
        """Type that tokens had when the head read them."""
        token_type: TokenType = self.recipe["dtype"]
        return token_type

    def load_head(self, device: torch.device) -> Head:
        """The trained head, ready for inference."""
        classes = len(self.classes.names)
        head = build_head(self.protocol.head, self.config["dim"], seed=0, classes=classes)
        head.load_state_dict(load_file(self.record.file(HEAD_FILE)))
        return head.eval().to(device)

    def load_backbone(self, weights: Weights, device: torch.device) -> BackboneModule:
        """The backbone that the head belongs to, with the run's adapter where it has one.

        Raises:
            WeightsError: The weights do not fit, or changed since they were hashed.
            AdapterError: The adapter is for another backbone.
        """
        backbone = load_backbone(self.spec, weights, device)
        if self.is_lora:
            load_adapter(backbone, self.record.folder / ADAPTER_FOLDER)
            backbone.eval().requires_grad_(False).to(device)
        return backbone

    def check_recipe(self, found: Mapping[str, Any], where: str) -> None:
        """Refuse tokens that the head was not trained on.

        Args:
            found: The recipe of the tokens at hand.
            where: What to call them in the error.

        Raises:
            RecordError: They are made in another way; every field that differs is named.
        """
        if differing := _differences(self.recipe, found):
            raise RecordError(
                f"run {self.id} no longer matches {where}: {'; '.join(differing)}; restore what "
                f"changed (--weights names the file of the weights), or train again.",
                subject=self.record,
            )


def find_run(workspace: Workspace, text: str) -> TrainedRun:
    """The trained run of that identifier, or of a part of it that no other run has.

    Raises:
        RecordError: There is none, there are several, or it is damaged.
    """
    runs = [name for name in list_record_ids(workspace.runs) if any(k in name for k in _KINDS)]
    found = [text] if text in runs else [name for name in runs if text and text in name]
    if len(found) != 1:
        shown = _listed(found or runs)
        what = f"{len(found)} runs match {text!r}" if found else f"there is no run {text!r}"
        raise RecordError(
            f"{what}; {'say which one' if found else 'trained runs here'}: {shown}.", subject=text
        )
    record = read_record(workspace.runs / found[0])
    missing = [key for key in ("recipe", "dim") if key not in record.config]
    if record.kind not in _KINDS or missing:
        raise RecordError(
            f"run {record.id} says nothing of its {' and '.join(missing) or 'training'}, as runs "
            f"of older versions do not; train it again.",
            subject=record,
        )
    known = {field.name for field in fields(Protocol)}
    values = record.config["protocol_fields"]
    protocol = Protocol(**{name: value for name, value in values.items() if name in known})
    return TrainedRun(record, protocol)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_RUNS
    listed = ", ".join(reversed(names[-_NAMED_RUNS:]))
    return (listed or "none") + (f" and {more} more" if more > 0 else "")


def _differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Every field that differs, as ``name was A, is B``."""
    differing: list[str] = []
    for name in dict.fromkeys([*expected, *found]):
        before, now = expected.get(name), found.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            differing += _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            differing.append(f"{prefix}{name} was {_short(before)}, is {_short(now)}")
    return differing


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) == 64 else text
