"""Patch tokens that were computed once: feature sets, their keys, how they are made and found."""
