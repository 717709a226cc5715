"""What ome-zarr and napari's reader make of an OME-Zarr, as JSON; run in an environment of theirs.

python read_back.py STORE
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import zarr
from napari_ome_zarr import napari_get_reader
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image, ImageLabel


def facts(levels: object) -> dict[str, object]:
    """Sizes of all levels, and the values of the finest."""
    levels = levels if isinstance(levels, list) else [levels]
    finest = np.asarray(levels[0])
    return {
        "shapes": [list(level.shape) for level in levels],
        "dtype": finest.dtype.str,
        "sha256": hashlib.sha256(np.ascontiguousarray(finest).tobytes()).hexdigest(),
    }


def main() -> None:
    """Write one object; fail where the specification's models do."""
    store = sys.argv[1]
    nodes = {
        node.zarr.path.rstrip("/").removeprefix(store): {
            **facts(node.data),
            "scales": [moves[0]["scale"] for moves in node.metadata["coordinateTransformations"]],
            "units": [axis.get("unit") for axis in node.metadata["axes"]],
        }
        for node in Reader(parse_url(store))()
        if node.data
    }
    layers = [
        {**facts(data), "kind": kind, "scale": list(about["scale"])}
        for data, about, kind in napari_get_reader(store)(store)
    ]
    group = zarr.open_group(store, mode="r")
    Image.from_zarr(group)
    for name in group["labels"].group_keys():
        ImageLabel.from_zarr(group["labels"][name])
    sys.stdout.write(json.dumps({"nodes": nodes, "layers": layers}) + "\n")


if __name__ == "__main__":
    main()
