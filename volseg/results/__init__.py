"""The contract of a case's folder, ``OUT/<case>/``: the names of its files here, what ``result.json`` holds in `case`.

Whoever writes or reads such a folder takes both from here. Names cost nothing to import; the models need pydantic.
"""

from __future__ import annotations

#: What was done with the case; written last.
RESULT = "result.json"
#: The mask, a name for each format.
NIFTI, SEG, LABEL_MAP = "mask.nii.gz", "mask.seg.dcm", "mask.labelmap.dcm"
RTSTRUCT, RTSTRUCT_XOR = "mask.rtstruct.dcm", "mask.rtstruct-xor.dcm"
NRRD, METAIMAGE = "mask.seg.nrrd", "mask.mha"
#: Masks in the order in which one is read where several are there: those with a grid of their own first.
MASKS = (NIFTI, NRRD, METAIMAGE, LABEL_MAP, SEG, RTSTRUCT, RTSTRUCT_XOR)
#: Volumes of the labels and what their voxels hold: for spreadsheets, and as a DICOM report.
TABLE, REPORT = "volumes.csv", "report.sr.dcm"
#: Surfaces: of all labels in their colours, and a folder with a file a label.
MESH_PLY, MESH_GLB, MESHES = "mesh.ply", "mesh.glb", "meshes"
#: Tables of the labels' colours; the second part of the name says whose.
COLOURS = "colours.*"
#: Picture of the mask over the scan.
PREVIEW = "preview.png"
#: The same as a DICOM image, which every PACS shows.
SUMMARY = "summary.sc.dcm"
#: Folder of the maps of probabilities and entropy.
MAPS = "probabilities"
#: The labels' probabilities as a DICOM SEG.
FRACTIONAL = "probabilities.seg.dcm"
#: Folder of the copy of a series that ``--repair-uids`` makes.
REPAIRED = "series"
