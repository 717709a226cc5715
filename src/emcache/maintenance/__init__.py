"""Checking, repairing and pruning what a workspace keeps, and a doctor for the whole machine."""
