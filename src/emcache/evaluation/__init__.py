"""Trained runs: how they are opened, scored on other data, and used to predict masks."""
