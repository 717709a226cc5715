"""A trained run, ready to segment slices at their own size: whole ones, or tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8

from emcache.cache.alignment import Transform, fit
from emcache.cache.inputs import as_stored, normalise, standardise
from emcache.cache.recipe import Recipe
from emcache.data.images import read_image
from emcache.data.plane import Part, Plane
from emcache.data.resize import GreyWindow, Preprocessing, preprocessing_of, resize_image
from emcache.data.tiling import Tiling
from emcache.data.volumes.open import open_volume
from emcache.errors import ImageError, UsageError
from emcache.evaluation.stitching import stitch
from emcache.evaluation.trained_run import TrainedRun, warn_of_nothing_learned
from emcache.models.arithmetic import autocast
from emcache.models.backbones.base import BackboneModule, shifted_layers
from emcache.models.device import pick_device
from emcache.models.heads import Head
from emcache.models.norms import select_domain
from emcache.models.weights import Weights, describe_untrained, find_workspace_weights, is_untrained
from emcache.progress import Reporter
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
    """Of the inputs: needed by a run that was trained at one physical scale, and kept in volumes;
    None for what the files state."""
    overwrite: bool = False
    """Replace results that are there already; inputs never are."""
    grey_window: GreyWindow | None = None
    """For inputs of more than 8 bits, in place of the window that the run was trained with."""
    weights: str | None = None
    """Where the backbone's weights are, if not where they were when the run was trained."""
    device: str = "auto"
    align_as: str | None = None
    """Which dataset of the training the inputs are like, for a run that aligns tokens."""
    ome_zarr: bool | None = None
    """Write OME-Zarr; None for inputs that are Zarr themselves."""


class PredictedRows(NamedTuple):
    """What a run makes of the next rows of a slice."""

    labels: UInt8[np.ndarray, "row col"]
    """As those of a :class:`Prediction`, and so are the others."""
    mask: UInt8[np.ndarray, "row col"]
    probability: Float32[np.ndarray, "row col"]
    outside: bool
    """Whether the slice is unlike those of the training, by what is known of it so far."""
    image: UInt8[np.ndarray, "row col"] | None = None
    """The same rows of the slice, where all of it was read at once."""


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
        self._encoding = trained.encoding

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
        preprocessing = preprocessing_for(trained, options)
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

    def window_of(self, plane: Plane) -> GreyWindow | None:
        """Values of a file that become black and white; None for 8 bits."""
        return self._window if is_deep(plane) else None

    def rows_of(self, plane: Plane, size: tuple[int, int]) -> Iterator[PredictedRows]:
        """Segment one slice of a file, a few rows after the other from the top.

        A run that was trained on tiles reads and holds no more of the slice than a row of them.

        Args:
            plane: Which.
            size: Its rows and columns.

        Raises:
            ImageError: It cannot be read, or is too small for a patch.
        """
        window = self.window_of(plane)
        if self._trained.tiling is None:
            done = self.segment(read_image(plane, window))
            labels, mask, probability = done.labels, done.mask, done.probability
            yield PredictedRows(labels, mask, probability, _outside(done), done.image)
            return
        yield from self._stitched(
            lambda part: read_image(replace(plane, part=part), window), size, self._trained.tiling
        )

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
        size: tuple[int, int] = image.shape
        if self._trained.tiling is None:
            logits, familiarity = self._logits(image)
            labels, mask, probability = self._shown(logits)
            return Prediction(image, labels, mask, probability, familiarity)
        known: list[Familiarity] = []
        tiling = self._trained.tiling
        strips = list(self._stitched(lambda part: image[part.slices], size, tiling, known))
        return Prediction(
            image,
            np.concatenate([strip.labels for strip in strips]),
            np.concatenate([strip.mask for strip in strips]),
            np.concatenate([strip.probability for strip in strips]),
            _typical(known),
        )

    def _stitched(
        self,
        read: Callable[[Part], UInt8[np.ndarray, "row col"]],
        size: tuple[int, int],
        tiling: Tiling,
        known: list[Familiarity] | None = None,
    ) -> Iterator[PredictedRows]:
        """Segment a slice tile by tile.

        Args:
            read: Reads a part of it.
            size: Of the slice.
            tiling: As in the training.
            known: Receives how familiar each tile is.
        """
        found: list[Familiarity] = [] if known is None else known

        def logits_of(part: Part) -> Float32[np.ndarray, "label row col"]:
            logits, familiarity = self._logits(read(part))
            if familiarity is not None:
                found.append(familiarity)
            return logits.float().cpu().numpy()

        for strip in stitch(*size, tiling, logits_of):
            shown = self._shown(torch.from_numpy(strip.logits).to(self._device))
            yield PredictedRows(*shown, outside=_is_mostly_outside(found))

    def _logits(
        self, image: UInt8[np.ndarray, "row col"]
    ) -> tuple[Float[torch.Tensor, "label row col"], Familiarity | None]:
        """Of a slice or a tile, at its own size."""
        height, width = image.shape
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
                logits: Float[torch.Tensor, "1 label row col"] = self._head(
                    tokens, (height, width), images if self._head.takes_images else None
                )
        return logits[0], familiarity

    def _shown(
        self, logits: Float[torch.Tensor, "label row col"]
    ) -> tuple[
        UInt8[np.ndarray, "row col"], UInt8[np.ndarray, "row col"], Float32[np.ndarray, "row col"]
    ]:
        """Labels, the mask as those of the training, and the foreground's probability."""
        with torch.inference_mode():
            labels = logits.argmax(dim=0).to(torch.uint8).cpu().numpy()
            foreground = 1 - logits.float().softmax(dim=0)[0]
        return labels, self._trained.classes.shown(labels), foreground.cpu().numpy()

    def _tokens(
        self, backbone: BackboneModule, images: Float32[torch.Tensor, "1 3 height width"]
    ) -> tuple[Float32[torch.Tensor, "1 channel row col"], Familiarity | None]:
        """What the head has seen of a slice, and how familiar it is."""
        trained = self._trained
        with autocast(self._device, trained.token_precision):
            layers = shifted_layers(backbone, images, trained.layers, trained.shift)
        tokens = torch.cat(
            [as_stored(layer.tokens.float(), self._encoding) for layer in layers], dim=1
        )
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


def _outside(prediction: Prediction) -> bool:
    return prediction.familiarity is not None and prediction.familiarity.outside


def _is_mostly_outside(tiles: Sequence[Familiarity]) -> bool:
    """Whether more than half of a slice's tiles are unlike those of the training."""
    return 2 * sum(tile.outside for tile in tiles) > len(tiles)


def _typical(tiles: Sequence[Familiarity]) -> Familiarity | None:
    """What stands for a slice: the tile in the middle, and what most tiles are."""
    if not tiles:
        return None
    middle = sorted(tiles, key=lambda tile: tile.p_tokens)[len(tiles) // 2]
    return middle._replace(outside=_is_mostly_outside(tiles))


def is_deep(plane: Plane) -> bool:
    """Whether a file holds more than 8 bits."""
    return open_volume(plane.path, plane.inner).dtype not in (np.uint8, np.bool_)


def preprocessing_for(trained: TrainedRun, options: PredictionOptions) -> Preprocessing:
    """How the inputs of a run are sized.

    Raises:
        UsageError: It was trained at one physical scale, and the voxel size is not given.
    """
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
    return replace(preprocessing, greys=trained.greys.identity(), tiling=trained.tiling)


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
        trained.recipe["dtype"],
        "+".join(trained.layers),
        shift=trained.shift,
        components=trained.recipe.get("components"),
        basis_sha256=trained.recipe.get("basis_sha256"),
    ).identity()
    trained.check_recipe(recipe, "the backbone")
    return weights
