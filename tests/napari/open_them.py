"""What napari makes of paths that are dropped on it, as JSON; run in an environment with napari.

Usage: ``python open_them.py PATH...``. Without a window: napari's model of the viewer.
"""

import json
import sys

import numpy as np
from napari.components import ViewerModel
from npe2 import PluginManager, PluginManifest

manifest = PluginManifest.from_distribution("emcache")
manager = PluginManager.instance()
manager.discover()
found = []
for path in sys.argv[1:]:
    viewer = ViewerModel()
    viewer.open(path, plugin="emcache")
    for layer in viewer.layers:
        shown = np.asarray(layer.data[0] if layer.data.ndim > 2 else layer.data)
        found.append(
            {
                "name": layer.name,
                "kind": type(layer).__name__,
                "shape": list(layer.data.shape),
                "scale": [float(value) for value in layer.scale],
                "mean": float(shown.mean()),
            }
        )
sys.stdout.write(json.dumps({"plugin": manifest.name, "layers": found}) + "\n")
