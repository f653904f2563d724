"""Labels from what holds them: label maps, folders of masks, DICOM SEG and RTSTRUCT, on the grid of their scan."""
