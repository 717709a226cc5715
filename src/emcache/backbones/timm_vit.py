"""timm's vision transformers behind the :class:`~emcache.backbones.protocol.Backbone` protocol."""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from emcache.backbones.protocol import Features
from emcache.backbones.registry import TINY, BackboneSpec
from emcache.errors import WeightsError

_NAMED_KEYS = 3


class TimmBackbone(nn.Module):
    """A timm vision transformer that takes any grid of patches."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = _build(spec)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.spec.patch

    @property
    def dim(self) -> int:
        """Channels of a token."""
        return self.spec.dim

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Patch tokens and class token of the last layer, after its normalisation."""
        sequence = self.model.forward_features(images)
        rows, columns = (side // self.patch for side in images.shape[-2:])
        patches = sequence[:, self.model.num_prefix_tokens :]
        # A view: the tokens stay in channels-last order, as they are stored.
        grid = patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        return Features(grid, sequence[:, 0])

    def load(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load weights in timm's format or the official DINOv2 one.

        Args:
            state: Tensors by name.
            source: What to call the weights in an error.

        Raises:
            WeightsError: The weights do not fit; the first keys that differ are named.
        """
        expected = self.model.state_dict()
        try:
            # Renames the official keys and resamples position embeddings of another grid.
            converted = checkpoint_filter_fn(dict(state), self.model)
        except (RuntimeError, KeyError, ValueError, AttributeError, TypeError):
            converted = dict(state)
        # A classifier belongs to no backbone that is used for its tokens.
        given = {key: value for key, value in converted.items() if not key.startswith("head.")}
        differing = _differing_keys(expected, given)
        if differing:
            more = len(differing) - _NAMED_KEYS
            raise WeightsError(
                f"{source} does not fit {self.spec.name}: {'; '.join(differing[:_NAMED_KEYS])}"
                f"{f' (and {more} more)' if more > 0 else ''}; choose the weights of "
                f"{self.spec.architecture}.",
                subject=source,
            )
        self.model.load_state_dict(given)


def _build(spec: BackboneSpec) -> VisionTransformer:
    if spec == TINY:
        return VisionTransformer(
            img_size=10 * spec.patch,
            patch_size=spec.patch,
            embed_dim=spec.dim,
            depth=2,
            num_heads=2,
            num_classes=0,
            global_pool="token",
            dynamic_img_size=True,
        )
    return timm.create_model(spec.architecture, num_classes=0, dynamic_img_size=True)


def _differing_keys(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    differing = []
    for key in (*expected, *(key for key in given if key not in expected)):
        if key not in given:
            differing.append(f"{key} is missing")
        elif key not in expected:
            differing.append(f"{key} is not part of the backbone")
        elif given[key].shape != expected[key].shape:
            have, want = (tuple(tensors[key].shape) for tensors in (given, expected))
            differing.append(f"{key} has shape {have} instead of {want}")
    return differing


def random_model(spec: BackboneSpec, seed: int) -> TimmBackbone:
    """An untrained backbone, the same for the same seed and versions of torch and timm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TimmBackbone(spec)
