"""Backbones, their weights and adapters, segmentation heads, and the device they run on.

A backbone family, a head or a source of weights belongs here.
"""
