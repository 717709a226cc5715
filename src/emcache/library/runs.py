"""Trained runs, as scripts see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped

from emcache.data.resize import GreyWindow
from emcache.evaluation import trained_run
from emcache.evaluation.predictor import Prediction, PredictionOptions, Predictor
from emcache.library.workspace import Workspace
from emcache.progress import Quiet, Reporter
from emcache.summaries import Summarised
from emcache.training.counts import Counts


class TrainedRun(Summarised):
    """A trained head, with the adapter of its backbone where it has one."""

    _kind = "TrainedRun"

    def __init__(self, workspace: Workspace, run: trained_run.TrainedRun) -> None:
        self.workspace = workspace
        self.run = run
        """Its record and protocol, for the functions of the rooms below."""
        self._predictors: dict[PredictionOptions, Predictor] = {}

    @classmethod
    def open(cls, workspace: Workspace, run: str) -> TrainedRun:
        """Open a run by its identifier, or a part of it that no other run has.

        Raises:
            RecordError: There is none, there are several, or it is damaged.
        """
        return cls(workspace, trained_run.find_run(workspace.place, run))

    @property
    def id(self) -> str:
        """Its identifier, the name of its folder in ``runs``."""
        return self.run.id

    @property
    def config(self) -> Mapping[str, Any]:
        """Everything that its record says: backbone, weights, protocol, seed, epochs and so on."""
        return self.run.config

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Foreground IoU on the slices that its own training scored: a row for each split."""
        return scores_of(pl.read_parquet(self.run.record.file("slice_metrics.parquet"), glob=False))

    def predict(
        self,
        image: Shaped[np.ndarray, "row col"],
        *,
        voxel_size_nm: Sequence[float | int] | None = None,
        grey_window: Sequence[float | int] | None = None,
        weights: str | None = None,
        align_as: str | None = None,
        device: str = "auto",
        progress: Reporter | None = None,
    ) -> Prediction:
        """Segment one slice; nothing is written. The model is loaded once.

        Args:
            image: Grey values of 8 bits, or of more with a grey window.
            voxel_size_nm: Of the slice, for a run that was trained at one physical scale.
            grey_window: Values that become black and white, in place of those of the training.
            weights: Where the backbone's weights are, if not where they were.
            align_as: Which dataset of the training the slice is like, for a run that aligns tokens
                of several.
            device: Where to compute.
            progress: Receives warnings.

        Returns:
            Labels, mask and probability, each of the image's size.

        Raises:
            RecordError: The weights are not those that it was trained with.
            ImageError: The image is too small, or of more than 8 bits without a grey window.
        """
        options = PredictionOptions(
            voxel_size_nm=None if voxel_size_nm is None else tuple(map(float, voxel_size_nm)),
            grey_window=None if grey_window is None else GreyWindow(*map(float, grey_window)),
            weights=weights,
            align_as=align_as,
            device=device,
        )
        if options not in self._predictors:
            self._predictors[options] = Predictor.open(
                self.workspace.place, self.run, options, progress or Quiet()
            )
        return self._predictors[options].predict(np.array(image))

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        config = self.config
        facts = {
            "regime": config["regime"],
            "backbone": config["backbone"],
            "weights": config["weights"],
            "trained on": config["train_on"],
            "seed": config["seed"],
            "protocol": self.run.protocol.label,
        }
        test = self.scores.filter(pl.col("split") == "test")
        scored = {
            f"test IoU {name}": f"{iou:.4f}" for name, iou in test.select("dataset", "iou").rows()
        }
        return self.id, {**facts, **scored}


def scores_of(counts: pl.DataFrame) -> pl.DataFrame:
    """IoU of the foreground from the counts of each slice.

    Args:
        counts: As records keep them.

    Returns:
        A row for each dataset and split: ``dataset``, ``split``, ``n_slices``, ``iou``.
    """
    rows = [
        {
            "dataset": dataset,
            "split": split,
            "n_slices": len(group),
            "iou": Counts(*(int(group[name].sum()) for name in ("tp", "fp", "fn", "tn"))).iou,
        }
        for (dataset, split), group in counts.filter(pl.col("class") == "foreground").group_by(
            ["eval_on", "split"], maintain_order=True
        )
    ]
    schema = {"dataset": pl.String, "split": pl.String, "n_slices": pl.Int64, "iou": pl.Float64}
    return pl.DataFrame(rows, schema)
