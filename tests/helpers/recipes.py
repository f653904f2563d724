"""A recipe of two labels, and affines by their axcodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from volseg.config import Recipe, recipe_from_dict


def recipe(**fields: Any) -> Recipe:
    return recipe_from_dict(
        {
            "name": "test",
            "channels": [{"name": "x", "modalities": ["MR"]}],
            "labels": [{"value": 1, "name": "a", "colour": [1, 2, 3]}, {"value": 4, "name": "b", "colour": [3, 2, 1]}],
            "window": [8, 8, 8],
            "intensity": {"scheme": "none"},
            **fields,
        },
        "test",
    )


def affine_of(orientation: str, spacing: tuple[float, float, float]) -> np.ndarray:
    """Affine of axcodes, spelt out."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    for axis, (letter, size) in enumerate(zip(orientation, spacing, strict=True)):
        affine[:3, axis] = np.array(directions[letter]) * size
    affine[:3, 3] = (7.0, -3.0, 11.0)
    return affine
