"""From a volume to its segmentation: windows, blending, engines, restoring, and the predictor that joins them."""
