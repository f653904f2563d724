"""DICOM series: their headers, the grids that they lie on, and their voxels."""
