"""Files made to harm, in every format but HDF5 itself: refused with file and key, before memory is taken."""

import io
import json
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from cmgl_cli.datasets import open_dataset
from cmgl_cli.datasets.images import load_image
from cmgl_cli.datasets.numpy_files import load_arrays
from cmgl_cli.datasets.stations import read_stations
from cmgl_cli.errors import InputError
from cmgl_cli.matrices import read_covariances, read_prior
from tests.datasets import miniatures


def header(shape, descr="|u1", version=1):
    buffer = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == 1 else np.lib.format.write_array_header_2_0
    write(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


class Evil:
    """Unpickling it makes a file."""

    def __reduce__(self):
        return (open, ("pickled-code-ran", "w"))


def archive(path, members, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, content in members.items():
            with file.open(name, "w", force_zip64=True) as member:
                for block in content if isinstance(content, list) else [content]:
                    member.write(block)
    return path


def bomb(path):
    """Two gigabytes of zeros in two megabytes."""
    return archive(path, {"covariance.npy": [header((2**31,)), *[bytes(2**24)] * 2**7]})


def gigantic(path):
    return archive(path, {"covariance.npy": header((10**6, 10**6), "<f8") + bytes(100)})


def longer_than_it_says(path):
    return archive(path, {"covariance.npy": header((3, 3)) + bytes(100)})


def objects(path):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array([Evil()], dtype=object), allow_pickle=True)
    return archive(path, {"covariance.npy": content.getvalue()})


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Evil()))
    return path


def structured(path):
    np.savez(path, covariance=np.zeros(3, [("a", "i4"), ("b", "f4")]))
    return path


def raw_bytes(path):
    np.savez(path, covariance=np.zeros(3, "V16"))
    return path


def twice(path):
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as file:
        for _ in range(2):
            file.writestr("covariance.npy", header((3,)) + bytes(3))
    return path


def other_packing(path):
    return archive(path, {"covariance.npy": header((3,)) + bytes(3)}, zipfile.ZIP_LZMA)


def control_characters(path):
    return archive(path, {"\x1b[31m.npy": header((3,)) + bytes(3)})


def nested_header(path):
    return archive(path, {"covariance.npy": b"\x93NUMPY\x01\x00\x60\x01" + b"(" * 352})


ARCHIVES = {
    bomb: r"expands to 2\.1 GB from 2\.1 MB",
    gigantic: "covariance claims 8000000000000 bytes",
    longer_than_it_says: "covariance has the shape of 9 bytes, but holds 100",
    objects: "covariance holds objects",
    bare_pickle: ".",
    structured: "covariance holds .*not plain",
    raw_bytes: "covariance holds",
    twice: "covariance.* twice",
    other_packing: "covariance is packed otherwise",
    control_characters: "no plain name",
    nested_header: ".",
}


@pytest.mark.parametrize("trick", ARCHIVES, ids=lambda trick: trick.__name__)
def test_archives_of_arrays(tmp_path, monkeypatch, trick):
    monkeypatch.chdir(tmp_path)
    path = trick(tmp_path / "mine.npz")
    with pytest.raises(ValueError, match=ARCHIVES[trick]):
        load_arrays(path)
    for read in (read_prior, read_covariances, lambda path: open_dataset("npz", path), read_stations):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(path) in caught.value.where and "\x1b" not in str(caught.value)
    assert not (tmp_path / "pickled-code-ran").exists()


@pytest.mark.parametrize("version", [1, 2])
def test_single_arrays(tmp_path, version):
    path = tmp_path / "mine.npy"
    path.write_bytes(header((2, 2), "<f8", version) + np.eye(2).tobytes())
    assert np.array_equal(load_arrays(path)[""], np.eye(2))
    assert np.array_equal(load_arrays(path.read_bytes())[""], np.eye(2))
    path.write_bytes(header((2**40,), "<f8", version))
    with pytest.raises(ValueError, match="claims"):
        load_arrays(path)
    np.save(path, np.array([Evil()]), allow_pickle=True)
    with pytest.raises(InputError, match="objects"):
        read_prior(path)


def test_what_numpy_saves_is_read_back(tmp_path):
    arrays = {
        "whole": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.ones((2, 3))),
        "texts": np.array(["a", "日本"]),
        "times": np.array(["2000-01"], "datetime64[D]"),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 4)),
        "swapped": np.arange(3, dtype=">i4"),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "all.npz", **arrays)
        found = load_arrays(tmp_path / "all.npz")
        assert found.keys() == arrays.keys()
        for name, values in arrays.items():
            assert np.array_equal(found[name], values) and found[name].dtype == values.dtype


# --- NetCDF ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def netcdf(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    path = tmp_path / "record.nc"
    times = np.array([f"2000-{month:02d}" for month in range(1, 13)], "datetime64[ns]")
    warm = (("time", "station"), np.random.default_rng(0).normal(size=(12, 3)))
    xarray.Dataset({"warm": warm}, {"time": times, "station": ["a", "b", "c"]}).to_netcdf(path, engine="h5netcdf")
    assert read_stations(path).values.shape == (12, 3, 1)
    return path


def test_netcdf_that_reads_other_files(netcdf):
    secret = netcdf.with_name("secret")
    secret.write_bytes(bytes(10_000))
    for spoil in ("storage", "link", "bomb"):
        whole = netcdf.read_bytes()
        with h5py.File(netcdf, "r+") as file:
            if spoil == "storage":
                file.create_dataset("cold", (12, 3), "f8", external=[(str(secret), 0, 288)])
            elif spoil == "link":
                file["cold"] = h5py.ExternalLink("other.nc", "warm")
            else:
                file.create_dataset("cold", (2**20, 2**20), "f8", chunks=(1, 2**10), compression="gzip")
        with pytest.raises(InputError) as caught:
            read_stations(netcdf)
        assert "cold" in caught.value.where and str(netcdf) in caught.value.where
        netcdf.write_bytes(whole)


# --- images ----------------------------------------------------------------------------------------------------------


def test_images_are_opened_by_content_not_by_name(tmp_path):
    """PostScript under another name would be run by an interpreter, where one is installed."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"picture\.png"):
        load_image(path)
    Image.new("RGB", (4, 4)).save(path, "ICO")
    with pytest.raises(InputError, match=r"picture\.png"):
        load_image(path)


# --- annotations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"segmentation": [[0, 0, 1e12, 0, 1e12, 5]]},
        {"segmentation": [[0, 0, float("inf"), 0, 3, 5]]},
        {"segmentation": [[0, 0, 1]]},
        {"segmentation": [["a", "b", "c", "d", "e", "f"]]},
        {"segmentation": ["abcdefgh"]},
        {"area": "wide"},
        {"area": None},
    ],
)
def test_annotations_made_to_exhaust(tmp_path, change):
    home, annotation = _coco(tmp_path)
    annotation.update(change)
    _rewrite(home, annotation)
    dataset = open_dataset("coco2014", tmp_path)
    with pytest.raises(InputError, match="annotation"):
        for sample in dataset.samples():
            dataset.mask(sample)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (0, 5), (-4, -4)])
def test_annotated_sizes_made_to_exhaust(tmp_path, shape):
    home, annotation = _coco(tmp_path)
    _rewrite(home, annotation, shape)
    dataset = open_dataset("coco2014", tmp_path)
    with pytest.raises(InputError, match="pixels"):
        for sample in dataset.samples():
            dataset.mask(sample)


def _coco(tmp_path):
    pytest.importorskip("pycocotools")
    home = miniatures.coco2014(tmp_path)
    return home, json.loads(_instances(home).read_text())["annotations"][0]


def _instances(home):
    return next(iter(sorted(home.rglob("instances_train2014.json"))))


def _rewrite(home, annotation, shape=None):
    path = _instances(home)
    content = json.loads(path.read_text())
    content["annotations"] = [annotation]
    if shape is not None:
        for image in content["images"]:
            image["height"], image["width"] = shape
    path.write_text(json.dumps(content))
    for other in home.rglob("instances_val2014.json"):
        os.unlink(other)
