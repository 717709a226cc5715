"""Slices and masks: what is read from files, how they pair, and how they are resized.

A format, a layout, a pairing rule or a split rule belongs here. Nothing here imports torch.
"""
