"""A backbone with a head on it: from slices to logits, and for LoRA what is trained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from emcache.models.backbones.module import BackboneModule
from emcache.models.heads import Head


class Segmenter(nn.Module):
    """From normalised slices to logits.

    Args:
        backbone: Frozen, but for an adapter; it stays in inference mode, as when tokens are
            extracted.
        head: Trained beside an adapter.
        parts: The backbone takes a batch in so many parts, one after the other, and adds up their
            gradients. The head sees the whole batch, so its batch norm does not notice, and the
            result is the same to within rounding; the backbone's forward pass runs twice.
    """

    def __init__(self, backbone: BackboneModule, head: Head, parts: int = 1) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._parts = parts
        self.train(mode=False)

    def train(self, mode: bool = True) -> Segmenter:
        """Switch the head alone: the backbone is always in inference mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], size: tuple[int, int]
    ) -> Float[Tensor, "batch classes out_height out_width"]:
        """Logits in float32, resized to ``size``."""
        parts = images.chunk(self._parts)
        if len(parts) == 1:
            tokens = self._tokens(images)
        elif torch.is_grad_enabled():
            # Of each part only the tokens are kept; its activations are made again, part by part,
            # when the gradient comes back through them.
            tokens = torch.cat([checkpoint(self._tokens, p, use_reentrant=False) for p in parts])
        else:
            tokens = torch.cat([self._tokens(part) for part in parts])
        logits: Tensor = self.head(tokens, size)
        return logits

    def _tokens(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channel row col"]:
        tokens: Tensor = self.backbone(images).tokens.float()
        return tokens
