"""Frozen vision transformers: one protocol, adapters at the edge."""

from emcache.models.backbones.base import Backbone, Features
from emcache.models.backbones.registry import BackboneSpec, find_backbone

__all__ = ["Backbone", "BackboneSpec", "Features", "find_backbone"]
