"""Datasets in every layout, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from volseg.datasets.cases import Case, load_dataset
from volseg.errors import InputError, UsageError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def describe(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def msd(folder: Path, *names: str) -> Path:
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    touch(folder, *(entry[kind] for entry in entries for kind in ("image", "label")))
    return describe(folder, {"training": entries, "test": ["./imagesTs/t.nii.gz"]})


def test_msd(tmp_path: Path) -> None:
    folder = msd(tmp_path, "b", "a.1")
    assert load_dataset(folder) == (
        Case("a.1", (folder / "imagesTr" / "a.1.nii.gz",), folder / "labelsTr" / "a.1.nii.gz"),
        Case("b", (folder / "imagesTr" / "b.nii.gz",), folder / "labelsTr" / "b.nii.gz"),
    )


def test_the_sample_data(sample_data: Path) -> None:
    cases = load_dataset(sample_data / "hippocampus")
    assert len(cases) == 12
    assert all(case.name.startswith("hippocampus_") for case in cases)


@pytest.mark.parametrize("key", ["channel_names", "modality"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_nnunet(tmp_path: Path, key: str, ending: str) -> None:
    touch(tmp_path, *(f"imagesTr/{case}_{channel:04d}{ending}" for case in "xy" for channel in (0, 1)))
    touch(tmp_path, f"labelsTr/y{ending}", f"labelsTr/x{ending}", "labelsTr/._x.txt")
    describe(tmp_path, {key: {"0": "T1", "1": "T2"}, "file_ending": ending, "numTraining": 2})
    images = [tmp_path / "imagesTr" / f"x_{channel:04d}{ending}" for channel in (0, 1)]
    cases = load_dataset(tmp_path)
    assert [case.name for case in cases] == ["x", "y"]
    assert cases[0] == Case("x", tuple(images), tmp_path / "labelsTr" / f"x{ending}")


def test_csv_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    touch(tmp_path, "scans/a/t1.nii", "scans/a/t2.nii", "masks/a.nii")
    table = tmp_path / "table.csv"
    table.write_text("﻿case,label,image_1,image_0\nfirst,masks/a.nii,scans/a/t2.nii,scans/a/t1.nii\n", encoding="utf-8")
    images = (tmp_path / "scans/a/t1.nii", tmp_path / "scans/a/t2.nii")
    assert load_dataset(table) == (Case("first", images, tmp_path / "masks/a.nii"),)


def test_csv_channels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    columns = [f"image_{channel}" for channel in range(12)]
    touch(tmp_path, "label.nii", *(f"{column}.nii" for column in columns))
    table = tmp_path / "table.csv"
    table.write_text(f"label,{','.join(columns)}\nlabel.nii,{','.join(f'{column}.nii' for column in columns)}\n")
    assert [path.stem for path in load_dataset(table)[0].images] == columns


def test_csv_names_cases_by_their_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "m.nii.gz")
    (tmp_path / "table.CSV").write_text("image,label\na.nii.gz,m.nii.gz\n")
    assert [case.name for case in load_dataset(tmp_path / "table.CSV")] == ["a"]


def test_csv_of_dicom_folders(tmp_path: Path) -> None:
    touch(tmp_path, "p.1/mr/1.dcm", "p.1/mask.dcm", "p.2/2.dcm", "p.2 seg/mask.dcm")
    (tmp_path / "table.csv").write_text("image,label\np.1/mr,p.1/mask.dcm\np.2,p.2 seg\n")
    assert load_dataset(tmp_path / "table.csv") == (
        Case("mr", (tmp_path / "p.1/mr",), tmp_path / "p.1/mask.dcm"),
        Case("p.2", (tmp_path / "p.2",), tmp_path / "p.2 seg"),
    )


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_no_dataset(tmp_path: Path) -> None:
    assert "dataset.json" in refused(tmp_path)
    assert "CSV" in refused(tmp_path / "absent")
    assert "CSV" in refused(tmp_path / "absent.csv")


@pytest.mark.parametrize("content", [[], {"training": []}, {}, {"training": [{"image": "a.nii"}]}, {"training": ["a"]}])
def test_a_description_without_cases(tmp_path: Path, content: Any) -> None:
    refused(describe(tmp_path, content))


def test_a_description_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{training:")
    assert "not a JSON file" in refused(tmp_path)


def test_absent_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder = msd(tmp_path, "a", "b")
    (folder / "labelsTr" / "a.nii.gz").unlink()
    (folder / "imagesTr" / "b.nii.gz").unlink()
    message = refused(folder)
    assert "2 files" in message
    assert str(folder / "labelsTr" / "a.nii.gz") in message


def test_two_cases_of_one_name(tmp_path: Path) -> None:
    assert "several cases have one name: a" in refused(msd(tmp_path, "a", "b", "a"))


@pytest.mark.parametrize("header", ["scan,label", "image,mask", ""])
def test_csv_with_other_columns(tmp_path: Path, header: str) -> None:
    (tmp_path / "table.csv").write_text(f"{header}\n")
    assert "expected image" in refused(tmp_path / "table.csv")


def test_csv_of_label_maps_alone(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "b.nii.gz").touch()
    (tmp_path / "table.csv").write_text("label,case\na.nii.gz,first\nb.nii.gz,\n")
    found = {case.name: (case.images, case.label.name) for case in load_dataset(tmp_path / "table.csv")}
    assert found == {"first": ((), "a.nii.gz"), "b": ((), "b.nii.gz")}


@pytest.mark.parametrize("row", ["a.nii", "a.nii,", ",m.nii", "a.nii,m.nii,more"])
def test_csv_with_a_row_that_is_too_short_or_too_long(tmp_path: Path, row: str) -> None:
    touch(tmp_path, "a.nii", "m.nii")
    (tmp_path / "table.csv").write_text(f"image,label\na.nii,m.nii\n{row}\n")
    assert "line 3" in refused(tmp_path / "table.csv")


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"image,label\n\xff\xfe\x00,\n")
    refused(tmp_path / "table.csv")


def subject(folder: Path, name: str, *structures: str, scan: str = "ct") -> None:
    touch(folder, f"{name}/{scan}.nii.gz", *(f"{name}/segmentations/{each}.nii.gz" for each in structures))


def test_totalsegmentator(tmp_path: Path) -> None:
    """Its table is parted by semicolons and starts with a byte order mark; what it keeps for a test isn't listed."""
    for name in ("s0003", "s0000", "s0001", "s0002", "s0004"):
        subject(tmp_path, name, "liver", "spleen")
    touch(tmp_path, "notes/readme.txt", ".cache/ct.nii.gz")
    rows = ["s0000;60;m;train", "s0001;50;f;test", "s0002;40;m;val", "s0003;70;f;test", "s0009;30;m;train"]
    (tmp_path / "meta.csv").write_text("\ufeffimage_id;age;gender;split\n" + "\n".join(rows), encoding="utf-8")
    cases = load_dataset(tmp_path)
    assert [case.name for case in cases] == ["s0000", "s0002", "s0004"]
    assert cases[0] == Case(
        "s0000", (tmp_path / "s0000/ct.nii.gz",), tmp_path / "s0000/segmentations", channels=("CT",)
    )


def test_totalsegmentator_without_a_table_and_in_mr(tmp_path: Path) -> None:
    subject(tmp_path, "s0000", "liver", scan="mri")
    assert load_dataset(tmp_path)[0].channels == ("MR",)


@pytest.mark.parametrize("absent", ["ct.nii.gz", "segmentations/liver.nii.gz"])
def test_half_a_subject_is_refused(tmp_path: Path, absent: str) -> None:
    subject(tmp_path, "s0000", "liver")
    subject(tmp_path, "s0001", "liver")
    (tmp_path / "s0001" / absent).unlink()
    if "/" in absent:
        (tmp_path / "s0001" / "segmentations").rmdir()
    assert "1 files of the dataset don't exist, the first is" in refused(tmp_path)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("image_id;age\ns0000;60\n", "columns are image_id, age; expected image_id and split"),
        ("image_id;split\ns0000;held out\n", "split is 'held out' somewhere; expected train, val, test"),
        ("image_id;split\ns0000\n", "split is '' somewhere"),
        ("image_id;split\ns0000;test\n", "keeps all 1 scans for a test"),
    ],
)
def test_a_table_that_says_something_else(tmp_path: Path, table: str, expected: str) -> None:
    subject(tmp_path, "s0000", "liver")
    (tmp_path / "meta.csv").write_text(table)
    assert expected in refused(tmp_path)


NOW, THEN = ("t1n", "t1c", "t2w", "t2f"), ("t1", "t1ce", "t2", "flair")


def brats(folder: Path, name: str, mark: str = "-", kinds: tuple[str, ...] = NOW, ending: str = ".nii.gz") -> None:
    touch(folder, *(f"{name}/{name}{mark}{kind}{ending}" for kind in (*kinds, "seg")))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_brats_since_2023(tmp_path: Path, ending: str) -> None:
    """Visits of a patient know whose they are."""
    for name in ("BraTS-GLI-00005-101", "BraTS-GLI-00005-100", "BraTS-GLI-00006-000"):
        brats(tmp_path, name, ending=ending)
    cases = load_dataset(tmp_path)
    name = "BraTS-GLI-00005-100"
    images = tuple(tmp_path / name / f"{name}-{kind}{ending}" for kind in NOW)
    assert cases[0] == Case(name, images, tmp_path / name / f"{name}-seg{ending}", "BraTS-GLI-00005", NOW)
    assert [case.patient for case in cases] == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]


def test_brats_up_to_2021(tmp_path: Path) -> None:
    name = "BraTS2021_00000"
    brats(tmp_path, name, "_", THEN)
    images = tuple(tmp_path / name / f"{name}_{kind}.nii.gz" for kind in THEN)
    assert load_dataset(tmp_path) == (Case(name, images, tmp_path / name / f"{name}_seg.nii.gz", None, NOW),)


@pytest.mark.parametrize("absent", ["t2f", "seg"])
def test_a_scan_of_brats_that_lacks_a_file(tmp_path: Path, absent: str) -> None:
    brats(tmp_path, "BraTS-GLI-00000-000")
    (tmp_path / "BraTS-GLI-00000-000" / f"BraTS-GLI-00000-000-{absent}.nii.gz").unlink()
    assert f"the first is {tmp_path}/BraTS-GLI-00000-000/BraTS-GLI-00000-000-{absent}.nii.gz" in refused(tmp_path)


def test_channels_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    brats(tmp_path, "BraTS2021_00000", "_", THEN)
    (case,) = load_dataset(tmp_path)
    files = [path.name.removesuffix(".nii.gz").rpartition("_")[2] for path in case.images_of(("FLAIR", "T1c", "t1n"))]
    assert files == ["flair", "t1ce", "t1"]
    with pytest.raises(InputError, match="t1n, t1c, t2w, t2f, and none called T1gd, PD") as caught:
        case.images_of(("T1n", "T1gd", "PD"))
    assert caught.value.code == "channels"
    with pytest.raises(InputError, match=r"two of the recipe's channels \(T1, t1n\) are one image"):
        case.images_of(("T1", "t1n"))


def test_without_names_channels_are_as_they_are() -> None:
    images = (Path("b.nii"), Path("a.nii"))
    assert Case("x", images, Path("l.nii")).images_of(("T2", "T1")) == images
    assert Case("x", images[:1], Path("l.nii"), channels=("CT",)).images_of(("anything",)) == images[:1]


def test_a_csv_with_semicolons(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "m.nii")
    (tmp_path / "table.csv").write_text("image;label;patient\na.nii;m.nii;p,1\n")
    assert load_dataset(tmp_path / "table.csv") == (Case("a", (tmp_path / "a.nii",), tmp_path / "m.nii", "p,1"),)


def nnunet_1(folder: Path, *names: str, channels: int = 1, listed: str = "{}.nii.gz", **more: Any) -> Path:
    """A folder of nnU-Net's first version, whose list leaves out the numbers of the channels."""
    touch(folder, *(f"imagesTr/{name}_{channel:04d}.nii.gz" for name in names for channel in range(channels)))
    touch(folder, *(f"labelsTr/{name}.nii.gz" for name in names))
    training = [{"image": f"./imagesTr/{listed.format(name)}", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    modality = {str(channel): f"M{channel}" for channel in range(channels)}
    return describe(folder, {"modality": modality, "training": training, "test": [], **more})


@pytest.mark.parametrize("listed", ["{}.nii.gz", "{}_0000.nii.gz"])
@pytest.mark.parametrize("channels", [1, 2])
def test_nnunet_s_list_may_leave_out_the_channels(tmp_path: Path, channels: int, listed: str) -> None:
    folder = nnunet_1(tmp_path, "a", "b.1", channels=channels, listed=listed)
    cases = load_dataset(folder)
    assert [case.name for case in cases] == ["a", "b.1"]
    expected = [folder / "imagesTr" / f"b.1_{channel:04d}.nii.gz" for channel in range(channels)]
    assert list(cases[1].images) == expected
    assert cases[1].label == folder / "labelsTr" / "b.1.nii.gz"


def test_a_listed_file_that_is_there_is_meant(tmp_path: Path) -> None:
    """The Decathlon's files of all channels, beside what nnU-Net made of them."""
    folder = nnunet_1(tmp_path, "a", channels=2)
    touch(folder, "imagesTr/a.nii.gz")
    assert load_dataset(folder)[0].images == (folder / "imagesTr" / "a.nii.gz",)


def test_a_channel_that_is_absent_is_named(tmp_path: Path) -> None:
    folder = nnunet_1(tmp_path, "a", channels=2)
    (folder / "imagesTr" / "a_0001.nii.gz").unlink()
    assert "the first is " + str(folder / "imagesTr" / "a_0001.nii.gz") in refused(folder)


def test_nnunet_s_second_version_may_list_files_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path / "pool", "one.nrrd", "two.nrrd", "mask.nrrd")
    files = {"images": ["../pool/one.nrrd", "../pool/two.nrrd"], "label": "../pool/mask.nrrd"}
    folder = describe(tmp_path / "set", {"channel_names": {"0": "T1", "1": "T2"}, "dataset": {"x": files}})
    (case,) = load_dataset(folder)
    assert case.name == "x"
    assert [path.resolve() for path in (*case.images, case.label)] == [
        tmp_path / "pool" / name for name in ("one.nrrd", "two.nrrd", "mask.nrrd")
    ]


def test_hidden_twins_of_a_mac_are_no_cases(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/._a_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/._a.nii.gz")
    describe(tmp_path, {"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"})
    assert [case.name for case in load_dataset(tmp_path)] == ["a"]


def test_dialects_of_the_description(tmp_path: Path) -> None:
    """A byte order mark, an ending without its dot, and folders parted as on Windows."""
    touch(tmp_path, "v2/imagesTr/a_0000.nii.gz", "v2/labelsTr/a.nii.gz", "v1/imagesTr/a.nii.gz", "v1/labelsTr/a.nii.gz")
    text = json.dumps({"channel_names": {"0": "MRI"}, "file_ending": "nii.gz"})
    (tmp_path / "v2/dataset.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [case.name for case in load_dataset(tmp_path / "v2")] == ["a"]
    entry = {"image": ".\\imagesTr\\a.nii.gz", "label": ".\\labelsTr\\a.nii.gz"}
    (case,) = load_dataset(describe(tmp_path / "v1", {"training": [entry]}))
    assert case == Case("a", (tmp_path / "v1/imagesTr/a.nii.gz",), tmp_path / "v1/labelsTr/a.nii.gz")
    (tmp_path / "table.csv").write_text("image,label\nv1\\imagesTr\\a.nii.gz,v1\\labelsTr\\a.nii.gz\n")
    assert load_dataset(tmp_path / "table.csv") == (case,)
