"""Synthetic images of label maps: intensities, resolution, artefacts and fields of view, all drawn at random."""
