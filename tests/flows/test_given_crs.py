"""CRSs and units from the command line, in other words, or missing: what flows make of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import laspy
import numpy as np
import pytest
from pyproj import CRS

from flows.preprocess import check, preprocess
from flows.segment import SegmentParameters, segment
from models.weights.checkpoint import save_checkpoint
from pointcloud.errors import PointloomError
from pointcloud.storage import ledger
from tests.flows.test_main_job import preprocessing
from tests.models.test_predictor import make_predictor
from tests.support.scan_files import geo_key_records, wkt_record

LAMBERT = 2154


def resaved(scan: Path, out: Path, *records: laspy.vlrs.vlr.VLR) -> None:
    """A copy of a scan with these records in place of those that say its CRS."""
    las = laspy.read(scan)
    kept = [record for record in las.header.vlrs if record.user_id != "LASF_Projection"]
    las.header.vlrs = laspy.vlrs.vlrlist.VLRList([*kept, *records])
    las.write(str(out))


@pytest.fixture
def scans(survey: Path, tmp_path: Path) -> Path:
    """Two adjacent scans; the CRS of the first in GeoTIFF keys, the second names none."""
    folder = tmp_path / "scans"
    folder.mkdir()
    first, second = sorted(survey.glob("*.laz"))
    resaved(first, folder / first.name, *geo_key_records({1024: 1, 3072: LAMBERT, 3076: 9001}))
    resaved(second, folder / second.name)
    return folder


def cores(out: Path) -> dict[str, tuple[int, int]]:
    """Scan -> points in and points kept."""
    return {s: (r.points_in, r.points_out) for s, r in ledger.read_all(str(out), "preprocess").items()}


def test_a_scan_without_crs_beside_others_is_cut_with_them(survey: Path, scans: Path, tmp_path: Path) -> None:
    same, missing = tmp_path / "same", tmp_path / "missing"
    plan = preprocess(preprocessing([scans], missing, dry_run=True))
    assert "without CRS lies beside scans in 'RGF93 v1 / Lambert-93'" in plan
    preprocess(preprocessing([survey], same))
    preprocess(preprocessing([scans], missing))
    assert cores(missing) == cores(same)
    second = sorted(scans.iterdir())[1]
    record = ledger.read_all(str(missing), "preprocess")[second.name]
    assert record.details["neighbours"]
    assert any(note.endswith("no CRS in the file.") for note in record.details["notes"])
    # In ESRI's words, with heights: neither blocks nor neighbours change.
    esri = CRS("EPSG:2154").to_wkt("WKT1_ESRI")
    first, _ = sorted(survey.glob("*.laz"))
    resaved(first, scans / first.name, wkt_record(esri))
    resaved(sorted(survey.glob("*.laz"))[1], second, *geo_key_records({3072: LAMBERT, 4096: 5720}))
    preprocess(preprocessing([scans], tmp_path / "words"))
    assert cores(tmp_path / "words") == cores(same)


def test_a_wrong_crs_is_replaced_by_the_one_that_is_given(survey: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "scans", tmp_path / "blocks"
    folder.mkdir()
    for scan in survey.glob("*.laz"):
        resaved(scan, folder / scan.name, *geo_key_records({1024: 3, 2048: 4326}))
    before = {scan.name: scan.read_bytes() for scan in folder.iterdir()}
    with pytest.raises(PointloomError, match="counts in degrees"):
        preprocess(preprocessing([folder], out))
    given = {"crs": ["EPSG:2154"]}
    preprocess(preprocessing([folder], out, **given))
    preprocess(preprocessing([survey], tmp_path / "right"))
    assert cores(out) == cores(tmp_path / "right")
    assert "0 scans to do (2 unchanged)" in preprocess(preprocessing([folder], out, dry_run=True, **given))
    changed = preprocess(preprocessing([folder], out, dry_run=True, units=["m,ft"], **given))
    assert "2 changed" in changed
    assert "read in the CRS or the units that are given" in changed
    record = next(iter(ledger.read_all(str(out), "preprocess").values()))
    assert record.details["crs"] == "RGF93 v1 / Lambert-93"
    assert {scan.name: scan.read_bytes() for scan in folder.iterdir()} == before
    with pytest.raises(PointloomError, match="'north_"):
        check(preprocessing([folder], out, crs=["north_*=EPSG:2154"]))


def test_scans_in_two_crss_side_by_side_are_named(survey: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    shutil.copytree(survey, folder)
    first = sorted(folder.iterdir())[0]
    resaved(first, first, *geo_key_records({1024: 1, 3072: 32767, 3076: 9001, 3080: 3.0}))
    plan = preprocess(preprocessing([folder], tmp_path / "blocks", dry_run=True))
    assert f"'{first.name}' (user-defined projection)" in plan
    assert "lie side by side and are not joined" in plan


@pytest.mark.usefixtures("ray_cluster")
def test_labelled_clouds_of_scans_in_feet_are_those_of_scans_in_metres(survey: Path, tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "scans"
    save_checkpoint(str(checkpoint), make_predictor(voxel_size_m=1.0).checkpoint)
    folder.mkdir()
    scan = sorted(survey.glob("*.laz"))[0]
    las = laspy.read(scan)
    # The same integers, with scales in feet: only the unit is another.
    las.header.scales = np.asarray(las.header.scales) / 0.3048
    las.header.offsets = np.asarray(las.header.offsets) / 0.3048
    las.points.scales, las.points.offsets = las.header.scales, las.header.offsets
    las.write(str(tmp_path / "feet.laz"))
    resaved(tmp_path / "feet.laz", folder / "feet.laz")

    def classes(out: Path, scans: Path, **changes: object) -> np.ndarray:
        given = SegmentParameters(
            scans=[str(scans)], checkpoint=str(checkpoint), out=str(out), cpus_per_actor=1, **changes,
        )  # fmt: skip
        (made,) = segment(given)
        return np.asarray(laspy.read(made).classification)

    metres = classes(tmp_path / "metres", scan)
    feet = classes(tmp_path / "feet", folder, units=["feet*=ft"])
    assert np.mean(metres == feet) > 0.99
    record = ledger.read_all(str(tmp_path / "feet"), "segment")["feet.laz"]
    assert record.details["crs"] == "local coordinates"
    page = (tmp_path / "feet" / "report.html").read_text()
    assert "read in the CRS or the units that are given" in page
