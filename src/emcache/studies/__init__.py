"""Grids of trainings, evaluations and distances in one TOML file."""
