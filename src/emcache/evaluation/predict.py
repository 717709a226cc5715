"""Prediction: masks of unseen slices, at their own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8

from emcache.cache.alignment import Transform, fit
from emcache.cache.inputs import normalise, standardise
from emcache.cache.recipe import Recipe
from emcache.data.images import outline_overlay, read_image
from emcache.data.plane import Plane
from emcache.data.resize import GreyWindow, Preprocessing, preprocessing_of, resize_image
from emcache.data.volumes.open import open_volume
from emcache.errors import ImageError, UsageError
from emcache.evaluation.outputs import PlannedFile, plan_files, writers
from emcache.evaluation.trained_run import TrainedRun, find_run, warn_of_nothing_learned
from emcache.models.backbones.base import BackboneModule, shifted_layers
from emcache.models.device import autocast, pick_device
from emcache.models.heads import Head
from emcache.models.norms import select_domain
from emcache.models.weights import Weights, describe_untrained, find_workspace_weights, is_untrained
from emcache.progress import Reporter
from emcache.storage.records import Record, new_record
from emcache.storage.workspace import Workspace
from emcache.training.reference import Familiarity, compare
from emcache.training.slice_inputs import PATCH


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """What the user may choose about a prediction."""

    probabilities: bool = False
    """Write the foreground's probability beside each mask."""
    overlays: bool = True
    """Write a picture of each slice with the predicted outline."""
    voxel_size_nm: Sequence[float] | None = None
    """Of the inputs, for a run that was trained at one physical scale."""
    overwrite: bool = False
    """Replace results that are there already; inputs never are."""
    grey_window: GreyWindow | None = None
    """For inputs of more than 8 bits, in place of the window that the run was trained with."""
    weights: str | None = None
    """Where the backbone's weights are, if not where they were when the run was trained."""
    device: str = "auto"
    align_as: str | None = None
    """Which dataset of the training the inputs are like, for a run that aligns tokens."""


class Prediction(NamedTuple):
    """What a run makes of one slice."""

    image: UInt8[np.ndarray, "row col"]
    labels: UInt8[np.ndarray, "row col"]
    """The likeliest class of each pixel; 0 is the background."""
    mask: UInt8[np.ndarray, "row col"]
    """The same as the training's masks have it: 0 and 255, or the values of named classes."""
    probability: Float32[np.ndarray, "row col"]
    """Of all classes but the background, at the slice's own size."""
    familiarity: Familiarity | None = None
    """How far the slice lies from those of the training; None where the run's record is of an
    older version, or the training had too few slices."""


def predict(
    workspace: Workspace,
    run: str,
    inputs: Sequence[Path],
    out: Path,
    options: PredictionOptions,
    reporter: Reporter,
) -> tuple[tuple[PlannedFile, ...], Record]:
    """Segment images by a trained run.

    Masks are written at each image's own size: the logits are resized to it, not the mask. A
    multi-page file gives one multi-page mask.

    Args:
        workspace: Where the run is.
        run: Its identifier, or a part of it.
        inputs: Image files, and folders of them.
        out: Folder to write into.
        options: What to write.
        reporter: Receives progress.

    Returns:
        The inputs with where their results are, and the record.

    Raises:
        RecordError: No such run, or today's weights are not those it was trained with.
        ImageError: An input that cannot be read.
        UsageError: Inputs whose masks would have the same name, or overwrite an input.
    """
    trained = find_run(workspace, run)
    device = pick_device(options.device)
    files = plan_files(
        inputs,
        out,
        probabilities=options.probabilities,
        overlays=options.overlays,
        overwrite=options.overwrite,
    )
    preprocessing = _preprocessing(trained, options)
    window = options.grey_window or trained.grey_window
    for file in files:
        _check_sizes(file, preprocessing)
        _check_depth(file, window, trained)
    predictor = Predictor.open(workspace, trained, options, reporter)
    outside = 0
    with (
        new_record(workspace.runs, "predict") as draft,
        reporter.task("Predicting", sum(len(f.pages) for f in files), "slices") as task,
    ):
        for file in files:
            with writers(file) as write:
                for page in predictor.pages(file):
                    write.mask(page.mask)
                    if write.probability is not None:
                        write.probability(page.probability)
                    if write.overlay is not None:
                        write.overlay(outline_overlay(page.image, None, page.labels))
                    outside += page.familiarity is not None and page.familiarity.outside
                    task.advance()
        draft.config = {
            "run_id": trained.id,
            "out": str(out.resolve()),
            "inputs": [str(file.input) for file in files],
            "n_slices": (count := sum(len(file.pages) for file in files)),
            "n_outside": outside,
            "device": device.type,
        }
        record = draft.finish()
    if outside:
        reporter.say(
            f"Warning: {outside} of {count} slices are unlike those that run {trained.id} was "
            f"trained on, so its masks may mean little; `emcache gap --of` says how far they lie."
        )
    return files, record


class Predictor:
    """A trained run, ready to segment."""

    def __init__(
        self,
        trained: TrainedRun,
        preprocessing: Preprocessing,
        window: GreyWindow | None,
        backbone: BackboneModule | None,
        head: Head,
        transform: Transform | None = None,
    ) -> None:
        self._trained = trained
        self._preprocessing = preprocessing
        self._window = window
        self._backbone = backbone
        self._head = head
        self._device = next(head.parameters()).device
        self._transform = transform
        self._references = trained.references()

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        trained: TrainedRun,
        options: PredictionOptions,
        reporter: Reporter,
    ) -> Predictor:
        """Load a run's backbone and head.

        Args:
            workspace: Where the run is.
            trained: The run.
            options: Where its weights are, where to compute, and how to read the slices.
            reporter: Receives warnings: of untrained weights, and of a run that learned nothing.

        Raises:
            RecordError: Today's weights are not those it was trained with.
            UsageError: It was trained at one physical scale, and the voxel size is not given.
        """
        device = pick_device(options.device)
        preprocessing = _preprocessing(trained, options)
        if is_untrained(trained.config["weights"]):
            reporter.say(describe_untrained(trained.config["weights"]))
        warn_of_nothing_learned(trained, reporter)
        backbone = None
        if trained.regime.has_backbone:
            weights = _find_weights(workspace, trained, preprocessing, options)
            backbone = trained.load_backbone(weights, device, reporter)
        window = options.grey_window or trained.grey_window
        head = trained.load_head(device, options.weights)
        transform = _align(trained, head, options.align_as)
        return cls(trained, preprocessing, window, backbone, head, transform)

    def pages(self, file: PlannedFile) -> Iterator[Prediction]:
        """Every page of a file, one after the other."""
        for plane in file.planes:
            yield self.segment(read_image(plane, self._window if _is_deep(plane) else None))

    def predict(self, values: Shaped[np.ndarray, "row col"]) -> Prediction:
        """Segment one slice.

        Args:
            values: Grey values: 8 bits, or more where the run was trained on more or the options
                say which values are black and white.

        Raises:
            ImageError: Too small for a patch, or of more than 8 bits without a grey window.
        """
        if values.dtype == np.uint8:
            return self.segment(values)
        if self._window is None:
            raise ImageError(
                f"the slice has values of type {values.dtype}, and run {self._trained.id} was "
                f"trained on 8 bits; expected 8 bits, or a grey_window.",
                subject=values.dtype,
            )
        return self.segment(self._window.apply(values, "the slice"))

    def segment(self, image: UInt8[np.ndarray, "row col"]) -> Prediction:
        """Segment one slice of 8 bits.

        Raises:
            ImageError: It is too small for a patch.
        """
        height, width = image.shape
        self._preprocessing.grid_of(height, width)
        greys = self._trained.greys.apply(image)
        pixels = resize_image(greys, self._preprocessing.size_of(height, width))
        inputs = torch.from_numpy(pixels)[None].to(self._device)
        images, familiarity = None, None
        with torch.inference_mode():
            if self._backbone is None:
                in_colour = self._head.reads == "colour"
                tokens = normalise(inputs) if in_colour else standardise(inputs)
            else:
                images = normalise(inputs)
                tokens, familiarity = self._tokens(self._backbone, images)
            with autocast(self._device, self._trained.precision):
                logits: Float[torch.Tensor, "1 class row col"] = self._head(
                    tokens, (height, width), images if self._head.takes_images else None
                )
            labels = logits[0].argmax(dim=0).to(torch.uint8)
            foreground = 1 - logits.float().softmax(dim=1)[0, 0]
        mask = self._trained.classes.shown(labels.cpu().numpy())
        return Prediction(image, labels.cpu().numpy(), mask, foreground.cpu().numpy(), familiarity)

    def _tokens(
        self, backbone: BackboneModule, images: Float32[torch.Tensor, "1 3 height width"]
    ) -> tuple[Float32[torch.Tensor, "1 channel row col"], Familiarity | None]:
        """What the head has seen of a slice, and how familiar it is."""
        trained = self._trained
        with autocast(self._device, trained.token_precision):
            layers = shifted_layers(backbone, images, trained.layers, trained.shift)
            tokens = torch.cat([layer.tokens.float() for layer in layers], dim=1)
        # Tokens from the cache were rounded.
        tokens = tokens.to(getattr(torch, trained.token_type))
        familiarity = None
        if self._references or self._transform is not None:
            stored = tokens[0].permute(1, 2, 0).cpu().numpy()
            if self._references:
                familiarity = compare(self._references, stored[..., -trained.spec.dim :])
            if self._transform is not None:
                aligned = torch.from_numpy(self._transform(stored)).to(self._device)
                tokens = aligned.permute(2, 0, 1)[None]
        return tokens.float(), familiarity


def _align(trained: TrainedRun, head: Head, align_as: str | None) -> Transform | None:
    """Align the inputs as those of a domain that the run was trained on.

    Returns:
        The transform of their tokens; None where none is needed, or the head does it.
    """
    domains = trained.domains()
    known = [*domains, *trained.norm_domains]
    name = known[0] if align_as is None and len(known) == 1 else align_as
    if not known and name is None:
        return None
    if name is None or name not in known:
        raise UsageError(
            f"run {trained.id} aligns the tokens of {', '.join(known) or 'no dataset'}; say with "
            f"--align-as which of them the inputs are like.",
            subject=name,
        )
    if not domains:
        select_domain(head, known.index(name))
        return None
    protocol, reference = trained.protocol, next(iter(domains.values()))
    return fit(protocol.align, domains[name], reference, protocol.align_shrinkage)


def _check_sizes(file: PlannedFile, preprocessing: Preprocessing) -> None:
    """Every slice must have room for a patch, and that is known before the first is predicted."""
    for size in file.pages:
        try:
            preprocessing.grid_of(*size)
        except ImageError as error:
            raise ImageError(f"{file.input}: {error}", subject=file.input) from error


def _is_deep(plane: Plane) -> bool:
    """Whether a file holds more than 8 bits."""
    return open_volume(plane.path, plane.inner).dtype not in (np.uint8, np.bool_)


def _check_depth(file: PlannedFile, window: GreyWindow | None, trained: TrainedRun) -> None:
    if window is None and _is_deep(file.planes[0]):
        raise ImageError(
            f"{file.input} has more than 8 bits, and run {trained.id} was trained on 8 bits; say "
            f"which values are black and white with --grey-window.",
            subject=file.input,
        )


def _preprocessing(trained: TrainedRun, options: PredictionOptions) -> Preprocessing:
    voxel: tuple[float, float, float] | None = None
    if options.voxel_size_nm is None and trained.config["pixel_size_nm"] is not None:
        raise UsageError(
            f"run {trained.id} was trained at {trained.config['pixel_size_nm']:g} nm a pixel; say "
            f"what the inputs have with --voxel-size Z,Y,X.",
            subject=trained.id,
        )
    if options.voxel_size_nm is not None:
        z, y, x = options.voxel_size_nm
        voxel = (z, y, x)
    config = trained.config
    preprocessing = preprocessing_of(
        trained.spec.patch if trained.regime.has_backbone else PATCH,
        config["longest_edge"],
        config["pixel_size_nm"],
        voxel,
        "the inputs",
    )
    return replace(preprocessing, greys=trained.greys.identity())


def _find_weights(
    workspace: Workspace,
    trained: TrainedRun,
    preprocessing: Preprocessing,
    options: PredictionOptions,
) -> Weights:
    """The weights that the run was trained with.

    Raises:
        RecordError: What is there today differs; every field is named.
    """
    spec = trained.spec
    text = options.weights or trained.config["weights"]
    weights = find_workspace_weights(workspace, text, spec)
    recipe: dict[str, Any] = Recipe(
        spec.name,
        spec.architecture,
        weights.sha256,
        preprocessing,
        trained.token_precision,
        trained.token_type,
        "+".join(trained.layers),
        shift=trained.shift,
    ).identity()
    trained.check_recipe(recipe, "the backbone")
    return weights
