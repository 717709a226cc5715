"""Heads: from a grid of patch tokens to logits for every pixel, alone or behind a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from emcache.models.backbones.base import BackboneModule, count_blocks, empty_backbone
from emcache.models.backbones.registry import BackboneSpec
from emcache.models.norms import BatchNorm, DomainBatchNorm2d, Norm, batches_seen, plain_norm

_STEM = 512
_WIDTHS = (512, 256, 128, 64, 64)
_in_norm = nn.Identity
"""In the place of a GELU that the norm before it computes too: weights keep their names."""


class Head(nn.Module, ABC):
    """A head: token grid in, logits at the mask's size out."""

    layout: torch.memory_format = torch.contiguous_format
    """How its weights and activations lie in memory (:func:`emcache.models.device.pick_layout`)."""

    @abstractmethod
    def logits(
        self, tokens: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch classes r c"]:
        """Logits at the head's own resolution."""

    takes_images = False
    """Whether it reads the slice itself beside its tokens."""

    reads: Literal["tokens", "grey", "colour"] = "tokens"
    """Patch tokens; or slices in place of them, standardised in one channel or normalised in
    three."""

    is_saved = True
    """Whether a record keeps its weights; else they are where they were."""

    def forward(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        size: tuple[int, int],
        images: Float[Tensor, "batch 3 image_row image_col"] | None = None,
    ) -> Float[Tensor, "batch classes height width"]:
        """Logits in float32, resized bilinearly (``align_corners=False``) to ``size``.

        Args:
            tokens: Grid of patch tokens.
            size: Of the mask.
            images: The normalised slices, for a head that takes them.
        """
        del images
        logits = self.logits(tokens.contiguous(memory_format=self.layout))
        # Resizing in float32 keeps neighbouring logits apart that bfloat16 would round together; a
        # few classes are resized several times as fast one by one.
        return functional.interpolate(
            logits.float().contiguous(), size=size, mode="bilinear", align_corners=False
        )


class DeconvHead(Head):
    """The study's head (arXiv 2602.08505): a stem and four upsampling blocks.

    1x1 stem to 512 channels; blocks 512 -> 256 -> 128 -> 64 -> 64, each a transposed convolution
    (k=4, s=2, p=1) and a 3x3 convolution, both without bias and followed by batch norm and GELU;
    1x1 logits. For two classes it has 3,632,258 + 512 D parameters.
    """

    def __init__(self, dim: int, classes: int = 2, norm: Norm = plain_norm) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(dim, _STEM, 1, bias=False), norm(_STEM, gelu=True), _in_norm()
        )
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                    norm(after, gelu=True),
                    _in_norm(),
                    nn.Conv2d(after, after, 3, padding=1, bias=False),
                    norm(after, gelu=True),
                    _in_norm(),
                )
                for before, after in pairwise(_WIDTHS)
            )
        )
        self.classifier = nn.Conv2d(_WIDTHS[-1], classes, 1)

    def logits(
        self, tokens: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch classes r c"]:
        """Logits at 16 times the grid."""
        logits: Tensor = self.classifier(self.blocks(self.stem(tokens)))
        return logits


_SKIP_WIDTH = 16


class SkipHead(Head):
    """The study's head with a shallow branch on the slice itself, for boundaries.

    Tokens have no detail below a patch. Two 3x3 convolutions of 16 channels read the slice at its
    training size; the study's head is resized to it, and a 1x1 convolution reads both. For two
    classes it has 2,832 parameters more than :class:`DeconvHead`.
    """

    takes_images = True

    def __init__(self, dim: int, classes: int = 2, norm: Norm = plain_norm) -> None:
        super().__init__()
        trunk = DeconvHead(dim, classes, norm)
        self.stem, self.blocks = trunk.stem, trunk.blocks
        self.skip = nn.Sequential(
            nn.Conv2d(3, _SKIP_WIDTH, 3, padding=1, bias=False),
            norm(_SKIP_WIDTH, gelu=True),
            _in_norm(),
            nn.Conv2d(_SKIP_WIDTH, _SKIP_WIDTH, 3, padding=1, bias=False),
            norm(_SKIP_WIDTH, gelu=True),
            _in_norm(),
        )
        self.classifier = nn.Conv2d(_WIDTHS[-1] + _SKIP_WIDTH, classes, 1)

    def logits(
        self, tokens: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch channels r c"]:
        """What the study's head makes of the tokens, before its last layer."""
        trunk: Tensor = self.blocks(self.stem(tokens))
        return trunk

    def forward(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        size: tuple[int, int],
        images: Float[Tensor, "batch 3 image_row image_col"] | None = None,
    ) -> Float[Tensor, "batch classes height width"]:
        """Logits in float32, resized bilinearly to ``size``."""
        assert images is not None  # noqa: S101 - it says that it takes them
        detail = self.skip(images.contiguous(memory_format=self.layout))
        trunk = self.logits(tokens.contiguous(memory_format=self.layout))
        at_image = functional.interpolate(
            trunk, size=images.shape[-2:], mode="bilinear", align_corners=False
        )
        both = torch.cat([at_image, detail.to(at_image.dtype)], dim=1)
        logits: Tensor = self.classifier(both).float()
        if logits.shape[-2:] == size:
            return logits
        return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class LinearHead(Head):
    """Batch norm and one 1x1 convolution: what the tokens tell without a decoder.

    It is the head of DINOv2's own evaluation (``BNHead`` in ``dinov2/eval/segmentation``). Tokens
    of a pretrained backbone are large and nearly parallel within a slice; the same learning rate
    suits them and others once their mean and scale are gone. For two classes it has 4 D + 2
    parameters, of which 2 D are the batch norm's.
    """

    _MOMENTUM = 0.1

    def __init__(self, dim: int, classes: int = 2, norm: Norm = plain_norm) -> None:
        super().__init__()
        self.norm: BatchNorm = norm(dim)
        self.classifier = nn.Conv2d(dim, classes, 1)

    def logits(
        self, tokens: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch classes r c"]:
        """Logits at the grid's own size."""
        if self.training:
            # The plain mean of the first steps, then PyTorch's moving average. From a mean of 0 and
            # a variance of 1 it would come near the tokens' own only after some epochs, and the
            # validation loss of the first ones would say nothing: at a low learning rate training
            # then stops with the weights of the first epoch.
            self.norm.momentum = max(self._MOMENTUM, 1 / (batches_seen(self.norm) + 1))
        # In float32 whatever the arithmetic: what tells tokens apart is small beside their mean.
        logits: Tensor = self.classifier(self.norm(tokens.float()))
        return logits


TrainedKind = Literal["deconv", "deconv-skip", "linear"]
FittedKind = Literal[
    "prototype", "knn", "forest", "forest-filters", "filters", "boosting", "logistic"
]
SliceKind = Literal["unet", "clipseg"]
HeadKind = TrainedKind | FittedKind | SliceKind
TRAINED: Sequence[str] = get_args(TrainedKind)
"""Heads that are trained on tokens."""
FITTED: Sequence[str] = get_args(FittedKind)
"""Heads that are fitted to a few labelled tokens (:mod:`emcache.models.fitted`)."""
_HEADS: Mapping[str, type[DeconvHead | SkipHead | LinearHead]] = {
    "deconv": DeconvHead,
    "deconv-skip": SkipHead,
    "linear": LinearHead,
}


def takes_images(kind: HeadKind) -> bool:
    """Whether a head reads the slice itself beside its tokens."""
    return kind in _FITTED_ON_IMAGES or (kind in _HEADS and _HEADS[kind].takes_images)


_FITTED_ON_IMAGES = ("forest-filters", "filters")


def build_head(
    kind: HeadKind,
    dim: int,
    seed: int,
    classes: int = 2,
    layout: torch.memory_format = torch.contiguous_format,
    domains: int = 0,
) -> Head:
    """An untrained head, the same for the same seed; fitted ones are built elsewhere.

    Args:
        kind: The study's, the same with a branch on the slice, or batch norm and one convolution.
        dim: Channels of a token.
        seed: Of its weights.
        classes: Outputs.
        layout: How weights and activations lie in memory; it changes results by rounding only.
        domains: Of how many domains batch norm keeps statistics of their own; 0 for plain batch
            norm, which knows no domains.
    """
    norm: Norm = partial(DomainBatchNorm2d, domains=domains) if domains else plain_norm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _HEADS[kind](dim, classes, norm)
    head.layout = layout
    return head.to(memory_format=layout)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class Segmenter(nn.Module):
    """From normalised slices, or the output of one of the backbone's blocks, to logits.

    Args:
        backbone: Frozen, but for an adapter; it stays in inference mode, as when tokens are
            extracted.
        head: Trained beside an adapter.
        parts: Number of parts in which the backbone takes a batch, one after the other; it adds up
            gradients. The head sees the whole batch, so its batch norm does not notice, and the
            result is the same to within rounding; the backbone's forward pass runs twice.
        after: Number of the block, from 1, whose output the inputs are; 0 for slices.
    """

    def __init__(
        self, backbone: BackboneModule, head: Head, parts: int = 1, after: int = 0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._parts = parts
        self._after = after
        self.train(mode=False)

    def train(self, mode: bool = True) -> Segmenter:
        """Switch the head alone: the backbone is always in inference mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, inputs: Float[Tensor, "batch ..."], size: tuple[int, int]
    ) -> Float[Tensor, "batch classes out_height out_width"]:
        """Logits in float32, resized to ``size``.

        Args:
            inputs: Slices (batch, 3, height, width), or the output of a block (batch, token,
                channel).
            size: Height and width; of the output of a block, those of its slices.
        """
        parts = inputs.chunk(self._parts)
        if len(parts) == 1:
            tokens = self.tokens(inputs, size)
        elif torch.is_grad_enabled():
            # Of each part only the tokens are kept; its activations are made again, part by part,
            # when the gradient comes back through them.
            again = partial(checkpoint, self.tokens, use_reentrant=False)
            tokens = torch.cat([again(part, size) for part in parts])
        else:
            tokens = torch.cat([self.tokens(part, size) for part in parts])
        logits: Tensor = self.head(tokens, size, inputs if self.head.takes_images else None)
        return logits

    def tokens(
        self, inputs: Float[Tensor, "batch ..."], size: tuple[int, int]
    ) -> Float[Tensor, "batch channel row col"]:
        """Patch tokens of the backbone's last layer in float32, from what a forward pass takes."""
        if self._after:
            grid = (size[0] // self.backbone.patch, size[1] // self.backbone.patch)
            return self.backbone.go_on(inputs, self._after, grid).tokens.float()
        tokens: Tensor = self.backbone(inputs).tokens.float()
        return tokens


LORA_RANK = 16
"""Rank of the study's adapters."""

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters of one backbone with the study's head and adapters."""

    backbone: str
    timm_or_open_clip: str
    """``timm:NAME`` or ``open_clip:NAME``."""
    embed_dim: int
    patch: int
    backbone_parameters: int
    head_parameters: int
    adapter_parameters: int
    """LoRA on the attention's qkv and output projection of every block."""

    def as_row(self) -> dict[str, str | int | float]:
        """The row of Table 7: millions to three decimals, percentages to one."""
        whole = self.backbone_parameters + self.head_parameters
        with_lora = self.head_parameters + self.adapter_parameters
        return {
            "backbone": self.backbone,
            "timm_or_open_clip": self.timm_or_open_clip,
            "embed_dim": self.embed_dim,
            "patch": self.patch,
            "head_only": round(self.head_parameters / _MILLION, 3),
            "head_only_pct": round(100 * self.head_parameters / whole, 1),
            "lora_plus_head": round(with_lora / _MILLION, 3),
            "lora_plus_head_pct": round(100 * with_lora / whole, 1),
        }


def count_study_parameters(specs: Sequence[BackboneSpec]) -> list[ParameterCount]:
    """Count every backbone; shapes alone are made, so giants cost no memory."""
    counts = []
    for spec in specs:
        backbone = empty_backbone(spec)
        head = DeconvHead(spec.dim)
        # Rank r on a map from a to b adds r (a + b): D to 3 D for qkv, D to D for the output.
        per_block = LORA_RANK * (spec.dim + 3 * spec.dim) + LORA_RANK * 2 * spec.dim
        counts.append(
            ParameterCount(
                spec.name,
                f"{spec.family}:{spec.architecture}",
                spec.dim,
                spec.patch,
                count_parameters(backbone),
                count_parameters(head),
                per_block * count_blocks(spec),
            )
        )
    return counts
