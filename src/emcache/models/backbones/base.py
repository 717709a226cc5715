"""What the adapters of all libraries share: a module with a spec, and strict loading of weights."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from emcache.errors import WeightsError
from emcache.models.backbones.registry import BackboneSpec
from emcache.models.backbones.tracing import plain, sources_of, trace
from emcache.models.layer_names import block_of, is_raw


class Features(NamedTuple):
    """What a backbone makes of a batch of slices."""

    tokens: Float[Tensor, "batch channel row col"]
    """Patch tokens of a layer as a grid; prefix tokens are dropped."""
    cls: Float[Tensor, "batch channel"]
    """The class token."""
    prefix: Float[Tensor, "batch prefix channel"] | None = None
    """All tokens before those of the patches, of a raw layer; None of others."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen vision transformer."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""

    @property
    def dim(self) -> int:
        """Channels of a token."""

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Tokens of normalised images whose sides are multiples of the patch."""

    def layers(
        self, images: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> list[Features]:
        """The same for several layers in one pass: numbers of blocks from 1, ``last`` or raw."""


_NAMED_KEYS = 3
_NAMED_SPARE = 2
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the tensors of a file."""

    used: tuple[str, ...]
    """Names, in the file, of those that the backbone was made of."""
    spare: Mapping[str, str]
    """All others by their names, each with why the backbone has no use for it."""
    remarks: tuple[str, ...]
    """What was done to them beyond another name or an order of numbers."""

    def describe_spare(self) -> str | None:
        """What was left out, in words; None where everything was used."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.spare.items():
            reasons.setdefault(why, []).append(name)
        parts = []
        for why, names in reasons.items():
            more = len(names) - _NAMED_SPARE
            listed = ", ".join(names[:_NAMED_SPARE]) + (f" and {more} more" if more > 0 else "")
            parts.append(f"{why} ({listed})")
        return "; ".join(parts) or None


class BackboneModule(nn.Module, ABC):
    """A vision transformer of some library, behind the protocol of all backbones."""

    model: Any
    """The library's own ``nn.Module``; each library names its parts in its own way."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self._checkpoints = False

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.spec.patch

    @property
    def dim(self) -> int:
        """Channels of a token."""
        return self.spec.dim

    @property
    @abstractmethod
    def blocks(self) -> nn.Module:
        """The transformer's blocks, in order; it has a length."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Patch tokens and class token of the last layer, after its normalisation."""

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module:
        """What normalises the output of the last block."""

    @abstractmethod
    def features(
        self, sequence: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Features:
        """Patch tokens and class token of a normalised sequence.

        Args:
            sequence: Prefix tokens first, then those of the patches.
            grid: Rows and columns of patches.
        """

    def layers(
        self, images: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> list[Features]:
        """Features of several layers in one pass, each after the final normalisation.

        Args:
            images: Normalised, their sides multiples of the patch.
            names: Numbers of blocks from 1, ``last``, or ``raw9`` for what block 9 gives as it is,
                without the normalisation.
        """
        blocks = list(self.blocks.children())
        outputs: dict[str, Tensor] = {}
        hooks = [
            blocks[block_of(name) - 1].register_forward_hook(partial(_keep, outputs, name))
            for name in names
            if name != "last"
        ]
        try:
            last: Features = self(images)
        finally:
            for hook in hooks:
                hook.remove()
        rows, columns = last.tokens.shape[-2:]

        def of(name: str) -> Features:
            if name == "last":
                return last
            if not is_raw(name):
                normalised: Tensor = self.final_norm(outputs[name])
                return self.features(normalised, (rows, columns))
            sequence = outputs[name]
            found = self.features(sequence, (rows, columns))
            before = sequence.shape[1] - rows * columns
            return Features(found.tokens, found.cls, sequence[:, :before])

        return [of(name) for name in names]

    def block_options(self, grid: tuple[int, int]) -> Sequence[Mapping[str, Any]]:
        """What each block is called with beside its sequence.

        Args:
            grid: Rows and columns of patches.
        """
        del grid
        return [{}] * len(list(self.blocks.children()))

    def go_on(
        self, sequence: Float[Tensor, "batch token channel"], after: int, grid: tuple[int, int]
    ) -> Features:
        """Features of the last layer, from the output of an earlier block.

        Args:
            sequence: Of the raw layer: prefix tokens first, then those of the patches.
            after: Number of that block, from 1; only those behind it run.
            grid: Rows and columns of patches.
        """
        blocks = list(self.blocks.children())
        for block, options in list(zip(blocks, self.block_options(grid), strict=True))[after:]:
            if self._checkpoints and torch.is_grad_enabled():
                sequence = checkpoint(block, sequence, use_reentrant=False, **options)
            else:
                sequence = block(sequence, **options)
        normalised: Tensor = self.final_norm(sequence)
        return self.features(normalised, grid)

    @abstractmethod
    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state in any of the family's official formats, under the library's own names."""

    def make_adaptable(self) -> None:
        """Bring the layers that adapters go on into a form that PEFT can wrap; once weights are in.

        Tokens stay the same to within rounding; names of parameters may change.
        """

    def checkpoint_activations(self) -> None:
        """Keep only each block's input for the backward pass, and compute the rest again."""
        self.model.set_grad_checkpointing(True)
        self._checkpoints = True

    spare_rules: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Patterns of names, in a file, of tensors without which tokens are the same, and what they
    are."""
    unneeded: ClassVar[frozenset[str]] = frozenset()
    """Parts of the library's model that tokens do not go through; a file need not have them."""

    def find_spare(self, name: str, state: Mapping[str, Tensor]) -> str | None:
        """What a tensor of a file is that tokens do not depend on; None where they may."""
        return next((why for rule, why in self.spare_rules if re.search(rule, name)), None)

    def remark(self, given: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """What conversion did to a file's numbers, in sentences without their full stop."""
        return ()

    def traits(self) -> Mapping[str, object]:
        """What decides tokens and no tensor shows, under the names of ``transformers``' configs."""
        return {}

    def load(self, state: Mapping[str, Tensor], source: str) -> Loaded:
        """Load weights in any of the family's published formats, all of them or none.

        Args:
            state: Tensors by name.
            source: What to call the weights in an error.

        Returns:
            Which tensors were used; every other one is named with the reason.

        Raises:
            WeightsError: A tensor is missing, has another size, or is neither used nor known to be
                of no use; the first that differ are named.
        """
        expected: Mapping[str, Tensor] = self.model.state_dict()
        # Where two tensors become one, their sum must not be rounded to half precision.
        traced = trace({k: t.float() if t.dtype in _HALVES else t for k, t in state.items()})
        converted = self.convert(traced)
        # A tensor that a converter made of nothing is as good as missing.
        given = {k: t for k, t in converted.items() if k in expected and sources_of(t)}
        used = frozenset[str]().union(*map(sources_of, given.values()))
        left = [name for name in state if name not in used]
        spare = {name: self.find_spare(name, state) for name in left}
        differing = self._missing(expected, given)
        differing += [f"{n} is not part of the backbone" for n, why in spare.items() if why is None]
        if differing:
            more = len(differing) - _NAMED_KEYS
            raise WeightsError(
                f"{source} does not fit {self.spec.name}: {'; '.join(differing[:_NAMED_KEYS])}"
                f"{f' (and {more} more)' if more > 0 else ''}; choose the weights of "
                f"{self.spec.architecture}.",
                subject=source,
            )
        remarks = self.remark(given, state)
        for key in expected.keys() - given.keys():
            # Nothing goes through it; zeros say so, and what it was drawn as does not stay.
            given[key] = expected[key].new_zeros(expected[key].shape)
        self.model.load_state_dict({key: plain(tensor) for key, tensor in given.items()})
        reasons = {name: why for name, why in spare.items() if why is not None}
        return Loaded(tuple(name for name in state if name in used), reasons, remarks)

    def _missing(self, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
        differing = []
        for key, tensor in expected.items():
            if key not in given and key not in self.unneeded:
                differing.append(f"{key} is missing")
            elif key in given and given[key].shape != tensor.shape:
                have, want = tuple(given[key].shape), tuple(tensor.shape)
                called = _called(key, sources_of(given[key]))
                differing.append(f"{called} has shape {have} instead of {want}")
        return differing


def shift_offsets(patch: int, shift: int) -> list[int]:
    """Pixels by which the passes of a finer grid are shifted along one edge.

    The tokens of all passes, interleaved, lie ``patch / shift`` apart, each about the middle of its
    own cell.
    """
    pitch = patch // shift
    return [step * pitch - (shift - 1) * pitch // 2 for step in range(shift)]


def shifted_layers(
    backbone: Backbone,
    images: Float[Tensor, "batch 3 height width"],
    names: Sequence[str],
    shift: int,
) -> list[Features]:
    """Features of several layers on a finer grid: ``shift ** 2`` passes, interleaved.

    Args:
        backbone: Frozen.
        images: Normalised, their sides multiples of the patch; they are mirrored at their edges.
        names: As for :meth:`Backbone.layers`.
        shift: Tokens along the edge of a patch; 1 is the plain pass.

    Returns:
        Tokens of ``shift`` times the rows and columns; class tokens are means over the passes.
    """
    if shift == 1:
        return backbone.layers(images, names)
    height, width = images.shape[-2:]
    offsets = shift_offsets(backbone.patch, shift)
    before, behind = max(0, -offsets[0]), max(0, offsets[-1])
    padded = functional.pad(images, (before, behind, before, behind), mode="reflect")
    passes = []
    for down in offsets:
        rows = padded[:, :, before + down : before + down + height]
        for right in offsets:
            window = rows[:, :, :, before + right : before + right + width]
            passes.append(backbone.layers(window.contiguous(), names))
    whole = []
    for layer in zip(*passes, strict=True):
        stacked = torch.stack([one.tokens for one in layer])
        grid: Tensor = stacked.unflatten(0, (shift, shift))  # type: ignore[no-untyped-call]
        # shift, shift, batch, channel, row, col -> batch, channel, (row shift), (col shift)
        finer = grid.permute(2, 3, 4, 0, 5, 1).flatten(4, 5).flatten(2, 3)
        whole.append(Features(finer, torch.stack([one.cls for one in layer]).mean(dim=0)))
    return whole


def _keep(
    outputs: dict[str, Tensor], name: str, block: nn.Module, given: Any, output: Tensor
) -> None:
    """A forward hook that keeps what a block gives."""
    del block, given
    outputs[name] = output


def _called(key: str, sources: Iterable[str]) -> str:
    """The name of a tensor, with that in the file where it is another."""
    names = sorted(sources)
    return key if names == [key] or not names else f"{key} ({names[0]} in the file)"


def build_backbone(spec: BackboneSpec) -> BackboneModule:
    """A backbone with whatever weights its library starts with."""
    # Each library takes seconds to import; only the one that is needed is.
    if spec.family == "open_clip":
        from emcache.models.backbones.open_clip_vit import OpenClipBackbone

        return OpenClipBackbone(spec)
    from emcache.models.backbones.timm_vit import TimmBackbone

    return TimmBackbone(spec)


def random_backbone(spec: BackboneSpec, seed: int) -> BackboneModule:
    """An untrained backbone, the same for the same seed and versions of the libraries.

    Processors of different kinds draw weights that differ in their last digits.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(spec)


def empty_backbone(spec: BackboneSpec) -> BackboneModule:
    """A backbone without any memory for its weights: shapes and counts only."""
    with torch.device("meta"):
        return build_backbone(spec)


def count_blocks(spec: BackboneSpec) -> int:
    """How many blocks a backbone has."""
    return sum(1 for _ in empty_backbone(spec).blocks.children())
