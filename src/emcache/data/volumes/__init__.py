"""Readers of image files and volumes, one module for each format."""
