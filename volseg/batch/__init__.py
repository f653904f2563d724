"""Many cases: each found, segmented, written and accounted for."""
