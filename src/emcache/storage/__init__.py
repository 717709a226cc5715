"""Files on disk: written whole or not at all, locked, hashed, indexed; records and the workspace.

Everything above keeps its files through this room. What comes in knows nothing of slices, models or
scores, and does not import torch.
"""
