from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from tests.helpers.dicom_files import Edit, put, voxels, write_series
from tests.helpers.dicom_objects import items
from volseg.loaders import Candidate, find


def tracer(**values: object) -> list[Dataset]:
    given: dict[str, object] = {
        "RadionuclideTotalDose": 370e6,
        "RadionuclideHalfLife": 6586.2,
        "RadiopharmaceuticalStartTime": "090000",
    }
    return items(**{keyword: value for keyword, value in (given | values).items() if value is not None})


def write(folder: Path, *edits: Edit, **values: object) -> Candidate:
    def edit(dataset: Dataset, index: int) -> None:
        put(
            SOPClassUID=PositronEmissionTomographyImageStorage,
            Modality="PT",
            Units="BQML",
            DecayCorrection="START",
            CorrectedImage=["ATTN", "DECY", "SCAT"],
            PatientWeight=70,
            SeriesDate="20200102",
            SeriesTime="100000.5",
            AcquisitionDate="20200102",
            AcquisitionTime=f"10{index:02}00",
            RadiopharmaceuticalInformationSequence=tracer(),
            RescaleSlope=1.5 + index,
            RescaleIntercept=0,
        )(dataset, index)
        put(**values)(dataset, index)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID

    write_series(folder, voxels() + np.int16(7), edit=edit)
    (candidate,) = find(folder).candidates
    return candidate


def test_units_and_the_factor_to_suv(tmp_path: Path) -> None:
    candidate = write(tmp_path)
    assert candidate.modality == "PT"
    # An hour of decay leaves exp(-ln 2 * 3600 / 6586.2) = 0.684640 of 370 MBq; 70000 g / 253.317 MBq = 2.763e-4.
    assert candidate.notes[-1] == ("PET in Bq/ml (BQML), kept as stored; SUV by body weight is 0.0002763 times that")
    scaled = (voxels() + 7) * (1.5 + np.arange(3))
    np.testing.assert_allclose(candidate.load().array.astype(float), scaled, rtol=1e-6)


def test_a_dose_that_is_given_as_at_injection_of_the_scan(tmp_path: Path) -> None:
    # Decay-corrected to the injection: 70000 g / 370 MBq.
    assert "SUV by body weight is 0.0001892 times" in write(tmp_path, DecayCorrection="ADMIN").notes[-1]


def test_an_injection_before_midnight(tmp_path: Path) -> None:
    sequence = tracer(RadiopharmaceuticalStartTime="233000")
    note = write(
        tmp_path,
        SeriesTime="003000",
        AcquisitionTime="003000",
        RadiopharmaceuticalInformationSequence=sequence,
    ).notes[-1]
    assert "0.0002763" in note


def test_an_injection_with_its_date(tmp_path: Path) -> None:
    sequence = tracer(RadiopharmaceuticalStartDateTime="20200102090000.0", RadiopharmaceuticalStartTime=None)
    assert "0.0002763" in write(tmp_path, RadiopharmaceuticalInformationSequence=sequence).notes[-1]


@pytest.mark.parametrize(
    "values",
    [
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"RadiopharmaceuticalInformationSequence": tracer(RadionuclideTotalDose=None)},
        {"RadiopharmaceuticalInformationSequence": None},
        {"CorrectedImage": ["ATTN"]},
        {"DecayCorrection": "NONE"},
        {"SeriesTime": "110000"},  # made later than it was scanned
    ],
)
def test_no_factor_where_the_header_lacks_something(tmp_path: Path, values: dict[str, object]) -> None:
    assert write(tmp_path, **values).notes[-1].endswith("the header lacks what SUV takes")


@pytest.mark.parametrize(
    ("units", "note"),
    [("GML", "PET in g/ml (SUV) (GML), kept as stored"), ("", "PET without Units: what its values measure isn't said")],
)
def test_other_units(tmp_path: Path, units: str, note: str) -> None:
    assert write(tmp_path, Units=units).notes[-1] == note
