"""How heads and adapters are trained, and how their predictions are counted and scored.

A protocol's field, a sampling rule or a regime belongs here.
"""
