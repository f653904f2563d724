"""Write and read back an RTSTRUCT with rt-utils, in the environment of `.ci/readers`; prints seconds as JSON.

``python rt_utils_write.py SERIES MASK.npy NUMBER OUT.dcm``: MASK is [row, column, slice].
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from rt_utils import RTStructBuilder

series, mask, number, out = sys.argv[1:]
array = np.load(mask)
start = time.perf_counter()
structures = RTStructBuilder.create_new(dicom_series_path=series)
opened = time.perf_counter()
for value in range(1, int(number) + 1):
    # With its own way to keep holes.
    structures.add_roi(mask=array == value, name=f"structure {value}", use_pin_hole=True)
structures.save(out)
written = time.perf_counter()
back = RTStructBuilder.create_from(dicom_series_path=series, rt_struct_path=out)
wrong = sum(
    int(np.count_nonzero(back.get_roi_mask_by_name(f"structure {value}") != (array == value)))
    for value in range(1, int(number) + 1)
)
print(json.dumps({"open": opened - start, "write": written - opened, "wrong_voxels": wrong}))
