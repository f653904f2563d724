"""TotalSegmentator's use of its nnU-Net models, as a recipe says it.

What its wrapper (version 2.18.0, tasks of one model such as ``total`` with ``--fast``) does with a scan:

1. Turns it to RAS+ (nibabel's ``as_closest_canonical``).
2. Resamples it to the model's spacing with ``scipy.ndimage.zoom(order=1, mode="nearest")``, which keeps the centres of
   the outermost voxels in place, and cuts the values to integers (int32, towards 0). A scan of this very spacing stays
   as it is. The new size is the old one times the ratio of spacings, rounded, half a voxel to the even number.
3. nnU-Net reads that, crops it to the nonzero box, normalises it, finds nothing to resample, takes steps of 0.8
   windows, doesn't mirror, and decides labels on this grid.
4. Brings labels back by ``scipy.ndimage.zoom(order=0)`` to the size that the scan had, and turns them back.

Values of labels stay as they are, and nothing is removed from the mask unless it is asked to.
"""

from __future__ import annotations

from volseg.config import Recipe, ResamplingConfig

#: What the model card says of the profile.
CARD = (
    "- profile totalsegmentator: as TotalSegmentator 2.18.0 does, scans are turned to RAS+, resampled linearly with the"
    " centres of the outermost voxels in place and cut to integers, before crop and normalisation; steps of 0.8 windows"
    ", no mirroring by default; labels are brought back by the nearest voxel"
)


def as_totalsegmentator(recipe: Recipe) -> Recipe:
    """Return the recipe with the choices of TotalSegmentator's wrapper.

    Parameters
    ----------
    recipe
        Recipe of the imported model. ``stored-KJI`` becomes ``SAR``: what nnU-Net reads is a file turned to RAS+.
    """
    turned = recipe.orientation.removeprefix("stored-").translate(str.maketrans("KJI", "SAR"))
    return recipe.model_copy(
        update={
            "orientation": turned,
            "resampling": ResamplingConfig(image_order=1, separate_axis="never", scheme="image"),
            "tile_step": 0.8,
            "mirroring": recipe.mirroring.model_copy(update={"use": False}),
        }
    )
