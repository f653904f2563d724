"""Planes to volumes. Worked out by hand: axial slices 5 mm apart unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.loaders.dicom.split import Part, split_planes
from volseg.loaders.dicom.stack import Plane

SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def plane(z: float, name: str = "", **tags: str) -> Plane:
    return Plane(
        name=name or f"z{z:g}",
        position=(-10.0, -20.0, z),
        row=(1.0, 0.0, 0.0),
        column=(0.0, 1.0, 0.0),
        spacing_mm=(0.5, 0.7),
        size=(6, 4),
        frame="1.2.3",
        tags=tags,
    )


def planes(count: int = 6, start: float = 0, **tags: str) -> list[Plane]:
    return [plane(start + 5 * k, **tags) for k in range(count)]


def sagittal(count: int, first: float = 0) -> list[Plane]:
    return [
        replace(plane(0, f"x{k}"), position=(first + 4.0 * k, -20.0, 30.0), row=SAGITTAL[0], column=SAGITTAL[1])
        for k in range(count)
    ]


def names(parts: Sequence[Part]) -> list[str]:
    return sorted("-".join(part.names) for part in parts)


def codes(parts: Sequence[Part]) -> list[str]:
    return sorted(part.refused.code for part in parts if part.refused)


def sizes(parts: Sequence[Part]) -> list[int]:
    return sorted(len(part.indices) for part in parts)


def test_one_volume_stays_one_whatever_its_numbers() -> None:
    series = [
        replace(p, tags={"AcquisitionNumber": str(k // 2), "ContentTime": str(k)}) for k, p in enumerate(planes())
    ]
    (part,) = split_planes(series[::-1])
    assert part.indices == (5, 4, 3, 2, 1, 0)
    assert part.names == part.attributes == ()
    assert part.stack is not None
    assert part.refused is None


@pytest.mark.parametrize(
    ("tag", "values", "expected"),
    [
        ("EchoTime", ("4.6", "92"), ["te4.6", "te92"]),
        ("EchoNumbers", ("1", "2"), ["echo1", "echo2"]),
        ("DiffusionBValue", ("0", "1000"), ["b0", "b1000"]),
        ("TemporalPositionIdentifier", ("1", "2"), ["t1", "t2"]),
        ("TriggerTime", ("0", "120.5"), ["trigger0", "trigger120.5"]),
        ("AcquisitionNumber", ("1", "2"), ["acq1", "acq2"]),
        ("InversionTime", ("50", "900"), ["ti50", "ti900"]),
        ("StackID", ("1", "2"), ["stack1", "stack2"]),
        ("ImageType", ("ORIGINAL\\PRIMARY\\M\\ND", "ORIGINAL\\PRIMARY\\P\\ND"), ["M", "P"]),
        ("ComplexImageComponent", ("MAGNITUDE", "PHASE"), ["MAGNITUDE", "PHASE"]),
        ("ConvolutionKernel", ("B30f", "B70f"), ["B30f", "B70f"]),
        ("ASLContext", ("LABEL", "CONTROL"), ["CONTROL", "LABEL"]),
        ("VasCollapseFlag", ("3", "14"), ["flag14", "flag3"]),
        ("DiffusionGradientOrientation", ("0\\0\\1", "0\\1\\0"), ["direction1", "direction2"]),
        ("DiffusionBValue", ("", "1000"), ["b-none", "b1000"]),
    ],
)
def test_two_images_a_position_are_told_apart(tag: str, values: tuple[str, str], expected: list[str]) -> None:
    series = [p for k in range(6) for p in (plane(5.0 * k, **{tag: values[0]}), plane(5.0 * k, **{tag: values[1]}))]
    parts = split_planes(series)
    assert names(parts) == expected
    assert sizes(parts) == [6, 6]
    assert {index % 2 for index in parts[0].indices} in ({0}, {1})  # the images of one value, and no other
    assert all(part.stack and part.attributes == (tag,) for part in parts)


def test_attributes_are_combined_where_one_is_not_enough() -> None:
    kinds = [{"EchoTime": te, "ImageType": f"ORIGINAL\\PRIMARY\\{kind}"} for te in ("5", "10") for kind in "MP"]
    parts = split_planes([plane(5.0 * k, **tags) for tags in kinds for k in range(6)])
    assert names(parts) == ["te10-M", "te10-P", "te5-M", "te5-P"]
    assert all(part.stack for part in parts)


def test_only_what_must_be_is_split_further() -> None:
    b0 = planes(DiffusionBValue="0", DiffusionGradientOrientation="")
    directions = [planes(DiffusionBValue="800", DiffusionGradientOrientation=f"{n}\\0\\0") for n in (0.1, 0.2, 0.3)]
    parts = split_planes([*b0, *(p for volume in directions for p in volume)])
    assert names(parts) == ["b0", "b800-direction1", "b800-direction2", "b800-direction3"]


def test_time_points_by_the_order_of_times_at_each_position() -> None:
    # Each slice has times of its own: no two images share one.
    series = [
        plane(5.0 * k, f"{k}/{t}", AcquisitionTime=f"1000{t}{k}.5", InstanceNumber=str(t))
        for k in range(4)
        for t in range(3)
    ]
    parts = split_planes(series)
    assert names(parts) == ["time1", "time2", "time3"]
    for number, part in enumerate(parts):
        assert [series[index].name for index in part.indices] == [f"{k}/{number}" for k in range(4)]


def test_times_are_not_enough_where_a_position_lacks_one() -> None:
    series = [plane(5.0 * k, AcquisitionTime=f"1000{t}{k}") for k in range(4) for t in range(3)]
    (part,) = split_planes(series[:-1])
    assert codes([part]) == ["duplicate-slice"]


def numbered(numbers: Sequence[int], times: int = 2, **tags: Sequence[str]) -> list[Plane]:
    """Time points one after the other, with the number of each of their images, and its value of each of `tags`."""
    count = len(numbers) // times
    return [
        plane(
            5.0 * (place % count),
            f"{place % count}/{place // count}",
            InstanceNumber=str(number),
            **{tag: values[place] for tag, values in tags.items()},
        )
        for place, number in enumerate(numbers)
    ]


def by_volume(times: int, count: int, first: int = 1) -> list[int]:
    return list(range(first, first + times * count))


@pytest.mark.parametrize(
    "numbers",
    [
        by_volume(3, 4),
        by_volume(3, 4, first=100),
        [3 * k + t for t in range(3) for k in range(4)],  # position by position
        [4 * t + 3 - k for t in range(3) for k in range(4)],  # from the other end
        [t for t in range(3) for _ in range(4)],  # one number a volume, as the tiles of a mosaic have
    ],
)
def test_volumes_by_the_order_of_their_numbers_alone(numbers: list[int]) -> None:
    series = numbered(numbers, times=3)
    parts = split_planes(series[::-1])
    assert names(parts) == ["volume1", "volume2", "volume3"]
    for number, part in enumerate(parts):
        assert [series[::-1][index].name for index in part.indices] == [f"{k}/{number}" for k in range(4)]
        assert part.attributes == ("the order of InstanceNumber alone",)


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2, 3, 4, 5, 6, 7, 9],  # one is absent
        [1, 2, 3, 4, 5, 6, 7, 7],
        [1, 3, 5, 7, 8, 6, 4, 2],  # one volume upwards, in turns with one downwards
        [1, 2, 7, 8, 3, 4, 5, 6],
        [7 * place % 8 for place in (0, 3, 1, 2, 5, 4, 7, 6)],
    ],
)
def test_numbers_that_can_mean_several_things(numbers: list[int]) -> None:
    (part,) = split_planes(numbered(numbers))
    assert codes([part]) == ["duplicate-slice"]


def test_numbers_are_nothing_where_a_position_lacks_an_image() -> None:
    (part,) = split_planes(numbered(by_volume(2, 4))[:-1])
    assert codes([part]) == ["duplicate-slice"]


def test_numbers_mix_no_b_values() -> None:
    b_values = ["0", "0", "0", "0", "0", "0", "1000", "1000"]
    (part,) = split_planes(numbered(by_volume(2, 4), DiffusionBValue=b_values))
    assert codes([part]) == ["duplicate-slice"]


def test_what_the_files_say_comes_before_their_numbers() -> None:
    # The second b-value lies between the two volumes of the first.
    b_values = [*["0"] * 4, *["1000"] * 4, *["0"] * 4]
    parts = split_planes(numbered(by_volume(3, 4), times=3, DiffusionBValue=b_values))
    assert names(parts) == ["volume1", "volume2", "volume3"]
    parts = split_planes(numbered(by_volume(3, 4), times=3, DiffusionBValue=sorted(b_values)))
    assert names(parts) == ["b0-volume1", "b0-volume2", "b1000"]


def test_content_times_tell_nothing_apart() -> None:
    series = [plane(5.0 * k, ContentTime=str(t)) for t in range(2) for k in range(6)]
    (part,) = split_planes(series)
    assert codes([part]) == ["duplicate-slice"]


def test_times_mix_no_b_values() -> None:
    series = [
        plane(5.0 * k, AcquisitionTime=str(10 * t + k), DiffusionBValue=str(1000 * (t == (k > 1))))
        for t in range(2)
        for k in range(4)
    ]
    # By their b-values, and not by their times.
    assert names(split_planes(series)) == ["b0", "b1000"]


def test_a_complete_echo_is_usable_beside_one_with_a_gap() -> None:
    second = planes(EchoTime="92")
    del second[2]
    parts = split_planes([*planes(EchoTime="4.6"), *second])
    assert [(part.names, part.stack is not None) for part in parts] == [(("te4.6",), True), (("te92",), False)]
    assert codes(parts) == ["missing-slice"]


def test_halves_of_two_echoes_are_not_one_volume() -> None:
    parts = split_planes([*planes(4, EchoTime="4.6"), *planes(4, start=20, EchoTime="92")])
    assert names(parts) == ["te4.6", "te92"]
    assert sizes(parts) == [4, 4]


def test_two_regions_are_volumes_of_their_own() -> None:
    chest = planes(4, AcquisitionNumber="1")
    below = [plane(40 + 3.0 * k, AcquisitionNumber="2") for k in range(5)]
    assert names(split_planes([*chest, *below])) == ["acq1", "acq2"]
    # Also on one even grid: each scan lies on its side of the gap.
    assert names(split_planes([*chest, *planes(4, start=40, AcquisitionNumber="2")])) == ["acq1", "acq2"]
    # But not where acquisitions go on across gaps: a table that moves between them.
    steps = [plane(5.0 * k, AcquisitionNumber=str(k // 3)) for k in range(12) if k not in (3, 4, 5)]
    assert codes(split_planes(steps)) == ["missing-slice"]


def test_time_points_a_little_apart() -> None:
    series = [plane(5.0 * k + 0.02 * t, TemporalPositionIdentifier=str(t)) for k in range(5) for t in range(2)]
    assert names(split_planes(series)) == ["t0", "t1"]


def test_another_echo_in_a_gap_is_no_slice() -> None:
    series = planes(EchoTime="4.6")
    series[3] = plane(15, EchoTime="9.2")
    (part,) = split_planes(series)
    assert codes([part]) == ["missing-slice"]
    assert part.refused is not None
    assert "z15 is of another kind" in str(part.refused)


def test_a_projection_among_the_slices_stands_alone() -> None:
    extra = plane(15, ImageType="DERIVED\\SECONDARY\\PROJECTION IMAGE")
    parts = split_planes([*planes(ImageType="ORIGINAL\\PRIMARY\\AXIAL"), extra])
    assert sizes(parts) == [1, 6]
    assert codes(parts) == ["not-3d"]


def test_orientations_are_volumes_of_their_own() -> None:
    parts = split_planes([*planes(5), *sagittal(3)])
    assert names(parts) == ["axial", "sagittal"]
    assert sizes(parts) == [3, 5]


def test_a_perpendicular_scout_stands_beside_the_volume() -> None:
    parts = split_planes([*sagittal(1, first=2), *planes(5)])
    assert codes(parts) == ["not-3d"]
    assert [part.names for part in parts if part.stack] == [("axial",)]


def test_single_images_of_all_orientations_are_no_volume() -> None:
    (part,) = split_planes([plane(0), *sagittal(1)])
    assert codes([part]) == ["mixed-orientation"]


@pytest.mark.parametrize("odd", [0, 2, 5])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"row": (0.8, 0.6, 0.0), "column": (-0.6, 0.8, 0.0)}, "mixed-orientation"),
        ({"row": (-1.0, 0.0, 0.0)}, "mixed-orientation"),
        ({"size": (4, 6)}, "mixed-size"),
        ({"spacing_mm": (0.7, 0.5)}, "mixed-size"),
        ({"frame": "1.2.4"}, "mixed-frame"),
    ],
)
def test_an_odd_slice_of_a_stack_refuses_it(odd: int, change: dict[str, object], code: str) -> None:
    series = planes()
    series[odd] = replace(series[odd], **change)  # type: ignore[arg-type]
    parts = split_planes(series)
    assert codes(parts) == [code]
    assert sizes(parts) == [6]


def test_two_whole_sizes_are_two_volumes() -> None:
    small = [replace(p, size=(3, 2), spacing_mm=(1.0, 1.4)) for p in planes()]
    parts = split_planes([*planes(), *small])
    assert names(parts) == ["3x2-1x1.4mm", "6x4-0.5x0.7mm"]
    assert not codes(parts)


def test_an_odd_image_off_the_stack_stands_alone() -> None:
    far = replace(plane(200), size=(3, 2))
    parts = split_planes([*planes(), far])
    assert codes(parts) == ["not-3d"]
    assert sizes(parts) == [1, 6]


@given(st.permutations(range(12)))
def test_the_order_of_the_files_is_nothing(order: list[int]) -> None:
    series = [*planes(EchoTime="1"), *planes(EchoTime="2")]
    parts = split_planes([series[index] for index in order])
    found = {part.names: [order[index] for index in part.indices] for part in parts}
    assert found == {("te1",): [0, 1, 2, 3, 4, 5], ("te2",): [6, 7, 8, 9, 10, 11]}


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["", "1", "2"]), st.sampled_from(["", "a", "b"]), st.booleans()),
        min_size=1,
        max_size=14,
    )
)
def test_every_plane_is_in_one_part_and_no_volume_has_doubles(
    drawn: list[tuple[int, str, str, bool]],
) -> None:
    series = [
        plane(5.0 * z, EchoTime=echo, ImageType=kind) if axial else sagittal(z + 1)[-1]
        for z, echo, kind, axial in drawn
    ]
    parts = split_planes(series)
    assert sorted(index for part in parts for index in part.indices) == list(range(len(series)))
    for part in parts:
        assert (part.stack is None) != (part.refused is None)
        if part.stack is not None:
            positions = np.array([series[index].position for index in part.indices])
            steps = np.diff(positions, axis=0)
            assert len(part.indices) > 1
            assert np.linalg.norm(steps, axis=1).min() > 1
            assert np.abs(steps - steps[0]).max() < 1e-9
