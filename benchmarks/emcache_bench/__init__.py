"""Measuring emcache against what it replaces, on the machine at hand: every figure a ratio."""
