"""Read a .seg.nrrd with 3D Slicer's slicerio: ``python slicer.py FILE OUT.npz``; segments as JSON on stdout."""

from __future__ import annotations

import json
import sys

import numpy as np
import slicerio

found = slicerio.read_segmentation(sys.argv[1])
np.savez(sys.argv[2], voxels=found["voxels"], lps_from_ijk=found["ijkToLPS"])
segments = [
    {
        "name": segment["name"],
        "value": segment["labelValue"],
        "layer": segment["layer"],
        "colour": list(segment["color"]),
        "terminology": segment["terminology"],
    }
    for segment in found["segments"]
]
print(json.dumps(segments))
