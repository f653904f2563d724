"""TotalSegmentator's use of its nnU-Net models, as far as a recipe can say it.

Its wrapper (version 2.18.0, task ``total``) turns a scan to RAS+, resamples it linearly to the model's spacing, and
runs nnU-Net with steps of 0.8 windows and without mirroring: these choices are kept. Others are not: it resamples so
that the centres of the outermost voxels stay in place, before it normalises, and cuts the values to integers; and it
brings the mask, not the probabilities, back to the scan's grid, by the nearest voxel.
"""

from __future__ import annotations

from volseg.config import Recipe, ResamplingConfig

#: What the model card says of the profile.
CARD = (
    "- profile totalsegmentator: scans turned to RAS+, resampled linearly, steps of 0.8 windows, no mirroring by"
    " default. Not as TotalSegmentator does: voxel edges stay in place in resampling, values are normalised first and"
    " not cut to integers, and probabilities are brought back to the scan's grid, not the mask"
)


def as_totalsegmentator(recipe: Recipe) -> Recipe:
    """Return the recipe with the choices of TotalSegmentator's wrapper.

    Parameters
    ----------
    recipe
        Of the imported model. ``stored-KJI`` becomes ``SAR``: what nnU-Net reads is a file turned to RAS+.
    """
    turned = recipe.orientation.removeprefix("stored-").translate(str.maketrans("KJI", "SAR"))
    return recipe.model_copy(
        update={
            "orientation": turned,
            "resampling": ResamplingConfig(image_order=1, separate_axis="never"),
            "tile_step": 0.8,
            "mirroring": recipe.mirroring.model_copy(update={"use": False}),
        }
    )
