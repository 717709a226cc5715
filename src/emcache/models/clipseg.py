"""CLIPSeg: masks from a text prompt, without a label (Lüddecke and Ecker, CVPR 2022)."""

from __future__ import annotations

from math import log
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from emcache.errors import UsageError, WeightsError
from emcache.models.heads import Head
from emcache.models.weights.finding import asking_hub, parse_hub
from emcache.models.weights.short_names import HUB, file_label, hub_label
from emcache.storage.hashing import file_sha256, json_sha256

if TYPE_CHECKING:
    from transformers import CLIPSegForImageSegmentation

NAME = "clipseg"
PUBLISHED = "hf:CIDAS/clipseg-rd64-refined"
"""What its authors published, as ``transformers`` reads it."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SMALL_FILES = ["*.json", "*.txt"]


class CLIPSegFiles(NamedTuple):
    """A model that ``transformers`` saved."""

    folder: Path
    label: str
    """What outputs call its weights."""
    sha256: str
    """Of the weights and of everything that decides what they mean: settings and vocabulary."""


class CLIPSegHead(Head):
    """CLIPSeg with one prompt, as a head that reads whole slices.

    A slice is resized to the model's own size (352 px as published), whatever its shape, and the
    map back to the mask's.

    Args:
        network: The model; it is not trained.
        prompt: Tokens of the prompt.
        threshold: Probability from 0 to 1 above which a pixel is foreground.
    """

    is_saved = False
    reads = "colour"

    def __init__(
        self,
        network: CLIPSegForImageSegmentation,
        prompt: Integer[Tensor, "1 token"],
        threshold: float,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(requires_grad=False)
        self.register_buffer("prompt", prompt)
        self._offset = log(threshold / (1 - threshold))
        settings: Any = network.config.vision_config
        self._edge = int(settings.image_size)

    @override
    def logits(
        self, tokens: Float[Tensor, "batch 3 row col"]
    ) -> Float[Tensor, "batch 2 edge edge"]:
        """Logits of background, 0, and of foreground, at the model's own size."""
        pixels = functional.interpolate(
            tokens,
            size=(self._edge, self._edge),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        prompt = self.get_buffer("prompt").expand(len(pixels), -1)
        found = self.network(input_ids=prompt, pixel_values=pixels).logits
        foreground = found.reshape(len(pixels), self._edge, self._edge) - self._offset
        return torch.stack([torch.zeros_like(foreground), foreground], dim=1)


def find_clipseg(text: str | None) -> CLIPSegFiles:
    """Find and hash a model.

    Args:
        text: As for :func:`clipseg_folder`.

    Raises:
        WeightsError: There is no such folder, it is no CLIPSeg, or the hub cannot be reached.
    """
    folder = clipseg_folder(text)
    sha256 = _folder_sha256(folder)
    source = clipseg_source(text)
    if source.startswith(HUB):
        label = hub_label(parse_hub(source)[0], folder.name)
    else:
        label = file_label(folder.name, sha256)
    return CLIPSegFiles(folder, label, sha256)


def clipseg_source(text: str | None) -> str:
    """Where a model comes from, in words that mean the same in every working directory."""
    if text in (None, "pretrained", "none"):
        return PUBLISHED
    assert text is not None  # noqa: S101 - the line above
    return text if text.startswith(HUB) else str(Path(text).expanduser().resolve())


def clipseg_folder(text: str | None) -> Path:
    """The folder of a model; one of the hub is downloaded.

    Args:
        text: A folder that ``transformers`` saved, or ``hf:REPOSITORY[@REVISION]``; None or
            ``pretrained`` for what its authors published.

    Raises:
        WeightsError: There is no such folder, or the hub cannot be reached.
    """
    source = clipseg_source(text)
    if source.startswith(HUB):
        return _download(*parse_hub(source))
    if not Path(source).is_dir():
        raise WeightsError(
            f"there is no folder {text}; expected one that holds a CLIPSeg of transformers, or "
            f"hf:REPOSITORY as {PUBLISHED}.",
            subject=text,
        )
    return Path(source)


def load_clipseg(folder: Path, prompt: str, threshold: float) -> CLIPSegHead:
    """The model with a prompt, ready to predict.

    Raises:
        UsageError: No prompt, or one that is longer than the model reads; or ``transformers`` is
            not installed.
        WeightsError: The folder is no CLIPSeg.
    """
    if not prompt.strip() or prompt == "none":
        raise UsageError(
            "there is no prompt; say with --prompt what to look for, as --prompt mitochondria.",
            subject=prompt,
        )
    try:
        from transformers import AutoTokenizer, CLIPSegForImageSegmentation
    except ImportError as error:
        raise UsageError(
            "CLIPSeg needs the package transformers, which is not installed; install it with "
            "`pip install 'emcache[clipseg]'`.",
            subject="transformers",
        ) from error
    try:
        # Typed as the model alone, whatever the options.
        both: Any = CLIPSegForImageSegmentation.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        network, loaded = both
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise WeightsError(
            f"{folder} cannot be read as a CLIPSeg of transformers "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]:.200}); expected its "
            f"weights, config.json and tokenizer, as {PUBLISHED} has them.",
            subject=str(folder),
        ) from error
    if missing := sorted(loaded["missing_keys"]):
        # transformers fills them with random numbers, and a mask of these means nothing.
        raise WeightsError(
            f"{folder} lacks {len(missing)} of the model's tensors ({missing[0]} ...); expected "
            f"all of a CLIPSeg's, its decoder's too, as {PUBLISHED} has them.",
            subject=str(folder),
        )
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    settings: Any = network.config.text_config
    longest = settings.max_position_embeddings
    if tokens.shape[1] > longest:
        raise UsageError(
            f"the prompt has {tokens.shape[1]} tokens, and the model reads {longest}; expected a "
            f"few words.",
            subject=prompt,
        )
    head = CLIPSegHead(network, tokens, threshold)
    return head.eval()


def _download(repository: str, revision: str) -> Path:
    """The folder of a repository in the hub's cache; a copy there is used without asking."""
    try:
        cached = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        if any((cached / name).exists() for name in _WEIGHTS):
            return cached
    except LocalEntryNotFoundError:
        pass
    without = "download it on a machine with a network and use --weights FOLDER"
    with asking_hub(repository, revision, f"the model {repository}", without):
        api = HfApi(endpoint=constants.ENDPOINT)
        listed = api.model_info(repository, revision=revision).siblings or []
        names = [item.rfilename for item in listed]
        # The weights once, though repositories hold them in two forms; and last, since a folder
        # that has them is taken for whole.
        small = [name for name in names if any(map(PurePath(name).match, _SMALL_FILES))]
        wanted = [name for name in small if "/" not in name]
        wanted += [name for name in _WEIGHTS if name in names][:1]
        if not wanted:
            raise _no_model(repository)
        files = [hf_hub_download(repository, name, revision=revision) for name in wanted]
    return Path(files[-1]).parent


def _no_model(where: str) -> WeightsError:
    return WeightsError(
        f"{where} holds no CLIPSeg; expected config.json and {' or '.join(_WEIGHTS)}, as "
        f"transformers saves them.",
        subject=where,
    )


def _folder_sha256(folder: Path) -> str:
    weights = [name for name in _WEIGHTS if (folder / name).is_file()]
    if not weights or not (folder / "config.json").is_file():
        raise _no_model(str(folder))
    small = sorted({path for kind in _SMALL_FILES for path in folder.glob(kind)})
    return json_sha256(
        {path.name: file_sha256(path) for path in (folder / weights[0], *small) if path.is_file()}
    )
