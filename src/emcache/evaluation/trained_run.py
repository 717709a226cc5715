"""Trained runs: found by their names, checked against what is there today, and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emcache.cache.alignment import moves_tokens
from emcache.cache.encoding import BASIS_FILE, Encoding, load_basis
from emcache.cache.find import FeatureRequest
from emcache.cache.layers import find_layers
from emcache.cache.moments import ALIGNMENT_FILE, Moments, load_moments
from emcache.cache.recipe import read_shift
from emcache.data.classes import ClassRule, class_rule
from emcache.data.greys import GreyRule, grey_rule_of
from emcache.data.resize import GreyWindow
from emcache.data.tiling import Tiling, tiling_of
from emcache.errors import RecordError, UsageError
from emcache.evaluation.run_config import RunConfig
from emcache.models.arithmetic import Precision
from emcache.models.backbones.base import BackboneModule
from emcache.models.backbones.registry import BackboneSpec, find_backbone
from emcache.models.heads import Head, Segmenter
from emcache.models.layouts import pick_layout
from emcache.models.loading import load_backbone
from emcache.models.tuned import find_tuned, load_tuned
from emcache.models.weights import Weights, read_weights_file
from emcache.progress import Reporter
from emcache.storage.records import Record, read_record
from emcache.storage.run_names import RUN_KINDS, find_run_id
from emcache.storage.workspace import Workspace
from emcache.training.plan import HEAD_FILE, HeadShape, Regime
from emcache.training.protocol import Protocol, read_protocol
from emcache.training.reference import REFERENCE_FILE, Reference, load_references
from emcache.training.regimes import REGIMES
from emcache.validation import Misfit, check


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
    def regime(self) -> Regime:
        """What it trained, and from what."""
        return REGIMES[self.config["regime"]]

    def features(self, weights: str | None) -> FeatureRequest:
        """Tokens of the kind that its head was trained on.

        Args:
            weights: Where the backbone's weights are, if not where they were.
        """
        config, encoding = self.config, self.encoding
        return FeatureRequest(
            config["backbone"],
            weights or config.get("weights_source") or config["weights"],
            config["longest_edge"],
            encoding.dtype,
            pixel_size_nm=config["pixel_size_nm"],
            precision=self.token_precision,
            weights_sha256=config["weights_sha256"],
            greys=self.greys,
            shift=self.shift,
            tiling=self.tiling,
            components=self.recipe.get("components"),
            basis=encoding.basis,
        )

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Everything that decided the tokens that its head was trained on."""
        recipe: Mapping[str, Any] = self.config["recipe"]
        return recipe

    @property
    def greys(self) -> GreyRule:
        """What was done to the greys of the slices first."""
        return grey_rule_of(self.recipe["preprocessing"])

    @property
    def shift(self) -> int:
        """Tokens along the edge of a patch."""
        return read_shift(self.protocol.tokens)

    @property
    def tiling(self) -> Tiling | None:
        """How slices were cut into tiles; None for whole ones."""
        return tiling_of(self.recipe["preprocessing"])

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
        return None if window is None else GreyWindow(*map(float, window))

    @property
    def precision(self) -> Precision:
        """Arithmetic of the training."""
        return Precision(self.config["precision"])

    @property
    def token_precision(self) -> Precision:
        """Arithmetic of the backbone."""
        return Precision(self.recipe["precision"])

    @property
    def encoding(self) -> Encoding:
        """How the tokens were stored that the head read.

        Raises:
            RecordError: The basis of their principal components cannot be read.
        """
        components = self.recipe.get("components") is not None
        basis = load_basis(self.record.folder / BASIS_FILE) if components else None
        return Encoding(self.recipe["dtype"], basis)

    def domains(self) -> Mapping[str, Moments]:
        """What the domains of its training were aligned by, the reference first; mostly nothing.

        Raises:
            RecordError: The record's file cannot be read.
        """
        if not moves_tokens(self.protocol.align):
            return {}
        return load_moments(self.record.file(ALIGNMENT_FILE))

    def references(self) -> list[Reference]:
        """What new slices can be compared with; nothing in records of older versions.

        Raises:
            RecordError: The record's file cannot be read.
        """
        if not self.record.has(REFERENCE_FILE):
            return []
        return load_references(self.record.file(REFERENCE_FILE))

    @property
    def layers(self) -> Sequence[str]:
        """Blocks of the backbone whose tokens its head reads."""
        return find_layers(self.protocol.layers, self.spec)

    @property
    def norm_domains(self) -> Sequence[str]:
        """Datasets that the head's batch norms have statistics of; mostly nothing."""
        names: Sequence[str] = self.config.get("domains", ())
        return names

    def load_head(self, device: torch.device, weights: str | None = None) -> Head:
        """The trained head, ready for inference.

        Args:
            device: Where it computes.
            weights: Where the weights of one that the record does not keep are, if not where they
                were.

        Raises:
            RecordError: The record holds no head, or one that is not as it says.
            WeightsError: The head's file cannot be read.
        """
        if not self.regime.learns:
            return self._load_prompted(weights).to(device)
        classes, dim = len(self.classes.names), self.config["dim"]
        expected = self.spec.dim * len(self.layers) if self.regime.has_backbone else dim
        if dim != expected:
            raise _unusable(
                self.record, f"its tokens have {dim} channels, and {self.spec.name} {expected}"
            )
        state = read_weights_file(self.record.file(HEAD_FILE))
        layout, domains = pick_layout(device, self.precision), len(self.norm_domains)
        shape = HeadShape(self.protocol, dim, classes, self.config.get("seed", 0), layout, domains)
        head = self.regime.empty_head(shape)
        try:
            head.load_state_dict(dict(state))
        except RuntimeError as error:
            raise _unusable(
                self.record, f"{HEAD_FILE} is not a head of the kind {self.protocol.head}"
            ) from error
        return head.eval().to(device)

    def _load_prompted(self, weights: str | None) -> Head:
        # transformers takes seconds to import.
        from emcache.models.clipseg import find_clipseg, load_clipseg

        files = find_clipseg(weights or self.config.get("weights_source"))
        if files.sha256 != self.config["weights_sha256"]:
            raise _unusable(self.record, f"the model in {files.folder} is not the one it had")
        return load_clipseg(files.folder, self.protocol.prompt, self.protocol.threshold)

    def load_backbone(
        self, weights: Weights, device: torch.device, reporter: Reporter
    ) -> BackboneModule:
        """The backbone that the head belongs to, with what the run changed in it.

        Raises:
            WeightsError: The weights do not fit, or changed since they were hashed.
            AdapterError: The adapter is for another backbone.
        """
        backbone = load_backbone(self.spec, weights, device, reporter)
        if self.regime.runs_backbone:
            load_tuned(backbone, find_tuned(self.record.folder, self.id))
            backbone.to(device)
        return backbone

    def load_model(
        self,
        weights: Weights | None,
        device: torch.device,
        reporter: Reporter,
        source: str | None = None,
    ) -> nn.Module:
        """What maps the inputs of the run's regime to logits.

        Args:
            weights: Of the backbone; None for a head that reads tokens.
            device: Where it computes.
            reporter: Receives what the weights' file holds beside the backbone.
            source: As the weights of :meth:`load_head`.

        Raises:
            EmcacheError: As :meth:`load_head` and :meth:`load_backbone`.
        """
        if weights is None:
            return self.load_head(device, source)
        backbone = self.load_backbone(weights, device, reporter)
        return Segmenter(backbone, self.load_head(device))

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
    record = read_record(workspace.runs / find_run_id(workspace, text))
    found = check(RunConfig, dict(record.config))
    if record.kind not in RUN_KINDS or (isinstance(found, Misfit) and found.kind == "missing"):
        missing = found.key if isinstance(found, Misfit) else "training"
        raise RecordError(
            f"run {record.id} says nothing of its {missing}, as runs of older versions do not; "
            f"train it again.",
            subject=record,
        )
    if isinstance(found, Misfit):
        raise _unusable(record, f"its {found.key} cannot be {found.value!r:.80}")
    try:
        return TrainedRun(record, read_protocol(found.protocol_fields))
    except UsageError as error:
        raise _unusable(record, str(error).rstrip(".")) from error


def warn_of_nothing_learned(trained: TrainedRun, reporter: Reporter) -> None:
    """Warn where the record says that the training learned nothing."""
    reason = trained.config.get("nothing_learned")
    if reason is not None:
        reporter.say(
            f"Warning: run {trained.id} learned nothing ({reason}), and so its masks say nothing; "
            f"choose another run, or train again with another --learning-rate."
        )


def _unusable(record: Record, why: str) -> RecordError:
    return RecordError(
        f"run {record.id} cannot be used: {why}; restore its folder from a copy, or train it "
        f"again.",
        subject=record,
    )


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
