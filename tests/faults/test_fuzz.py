"""Spoilt inputs of every format a user hands in: read, or refused with a reason; quickly and in little memory."""

import json
import resource
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cmgl_cli.about import inspect_artifact
from cmgl_cli.artifacts.reader import HEADER
from cmgl_cli.config import build_run
from cmgl_cli.console import Console
from cmgl_cli.datasets import open_dataset
from cmgl_cli.datasets.stations import read_stations
from cmgl_cli.datasets.stations.coordinates import read_places
from cmgl_cli.datasets.texts import read_text_table
from cmgl_cli.errors import CmglError
from cmgl_cli.matrices import read_covariances, read_prior
from tests.artifacts import helpers
from tests.datasets.stations import examples

SECONDS, BYTES = 10, 2**30
SAMPLE, WHOLE = 15, 400
VALUES = examples.random_table()
DAYS = examples.days(30)

CONFIG = yaml.safe_dump(
    {
        "dataset": "smoke",
        "root": "data",
        "until": ["classify", "segment"],
        "seed": 3,
        "dataset_options": {"images": 8},
        "extract": {"encoder": "builtin:tiny", "split": ["train"], "batch_size": 3},
        "distill": {"nodes": 4, "balance": 0.5, "keep_nodes": True},
        "fit-graphs": {"rho": [0.1, 0.2], "k": "0,10", "ridge": None},
    }
)
TEXTS = {
    "texts.yaml": "cat: [A cat purrs., 'It: mews']\ndog:\n- |\n  A dog\n  barks.\n- &a Woof\nowl: *a\n",
    "texts.json": '{"cat": ["A cat\\u00e9 purrs."], "dog": "A dog."}',
    "texts.csv": 'class,text\ncat,"A cat, purring."\ndog,A dog.\n',
}
STATIONS = {
    "tidy.csv": examples.tidy(VALUES, DAYS).encode(),
    "agency.csv": examples.jma(VALUES, [[day] for day in DAYS]),
    "plain.csv": examples.jma(VALUES, [day.split("-") for day in DAYS], newline="\n", quality=False),
}
PIECES = st.sampled_from(
    [
        b"",
        b"\0",
        b"\n",
        b",",
        b'"',
        b":",
        b" ",
        b"- ",
        b"[",
        b"{",
        b"&a ",
        b"*a",
        b"\xff",
        b"\xe2\x80",
        b"\xc2\x85",
        b"\r",
    ]
    + [
        b"1e999",
        b"-1",
        b"99999999999999999999999",
        b".nan",
        b"null",
        b"~",
        b"true",
        b"2001-01-01",
        b"<<: *a\n",
        b"0x10",
    ]
    + [b"9999-12-31", b"0001-01", b"\\ud800", b"\\u0000", b"../../x", b"/etc/passwd", b"1_000"]
    + [b"!!python/object:os.system "]
) | st.binary(max_size=6)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), PIECES, st.integers(1, 3)), max_size=8)


def spoilt(raw, edits):
    """Replace some bytes by pieces that mean something somewhere."""
    raw = bytearray(raw)
    for place, width, piece, times in edits:
        at = int(place * len(raw))
        raw[at : at + width] = piece * times
    return bytes(raw)


@contextmanager
def bounded():
    """Nothing but a `CmglError` may come out, within ten seconds and a gigabyte."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        yield
    except CmglError as error:
        assert error.what and error.fix and len(str(error)) < 5000
    assert time.process_time() - start < SECONDS
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES


def fuzz(**strategies):
    """Run a test on a few examples by default, and on many with the faults."""

    def decorate(test):
        def of(count):
            checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
            return settings(max_examples=count, deadline=None, suppress_health_check=checks)(given(**strategies)(test))

        few, many = of(SAMPLE), of(WHOLE)

        @pytest.mark.parametrize("run", [few, pytest.param(many, marks=pytest.mark.faults)], ids=["few", "many"])
        def fuzzed(run, tmp_path):
            run(tmp_path=tmp_path)

        return fuzzed

    return decorate


def _fuzz_config(tmp_path, edits):
    path = tmp_path / "settings.yaml"
    path.write_bytes(spoilt(CONFIG.encode(), edits))
    with bounded():
        run = build_run(path, environment={})
        assert run.stages["distill"].nodes >= 2


def _fuzz_texts(tmp_path, kind, edits):
    (tmp_path / kind).write_bytes(spoilt(TEXTS[kind].encode(), edits))
    with bounded():
        table = read_text_table(tmp_path / kind)
        assert all(text.strip() and text.encode() for texts in table.texts.values() for text in texts)


def _fuzz_stations(tmp_path, kind, edits):
    (tmp_path / kind).write_bytes(spoilt(STATIONS[kind], edits))
    with bounded():
        assert not np.isinf(read_stations(tmp_path / kind).values).any()


def _fuzz_places(tmp_path, edits):
    (tmp_path / "places.csv").write_bytes(spoilt(examples.STATIONS.encode(), edits))
    with bounded():
        read_places(tmp_path / "places.csv")


def _fuzz_masks(tmp_path, mode, edits):
    for name in ("images/train", "masks/train"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    about = {"classes": ["sky", "road"], "ignore_index": 255, "palette": [[0, 0, 0], [9, 9, 9]]}
    (tmp_path / "classes.json").write_text(json.dumps(about))
    Image.new("RGB", (9, 7)).save(tmp_path / "images/train/a.png")
    mask = tmp_path / "masks/train/a.png"
    Image.new(mode, (9, 7)).save(mask)
    mask.write_bytes(spoilt(mask.read_bytes(), edits))
    with bounded():
        dataset = open_dataset("folder", tmp_path)
        found = dataset.mask(dataset.samples()[0])
        assert found.shape == (7, 9) and set(np.unique(found)) <= {0, 1, 255}


def _fuzz_matrices(tmp_path, kind, edits):
    path = tmp_path / f"mine.{kind}"
    if kind == "csv":
        path.write_text("a,b\n1,0.5\n0.5,1\n")
    elif kind == "npz":
        np.savez(path, covariance=np.eye(3), classes=np.array(["x"]), nodes=np.array(list("abc")))
    else:
        with h5py.File(path, "w") as file:
            file["covariance"], file["nodes"] = np.eye(3), ["a", "b", "c"]
    path.write_bytes(spoilt(path.read_bytes(), edits))
    for read in (read_covariances, read_prior):
        with bounded():
            read(path)


ATTRIBUTES = (
    st.text(max_size=30)
    | st.integers(-(2**62), 2**62)
    | st.floats()
    | st.booleans()
    | st.binary(min_size=1, max_size=20).map(np.void)
    | st.lists(st.integers(0, 9), max_size=4).map(np.array)
    | st.sampled_from(["{}", "[]", "null", '{"a":1e999}', '{"renders":{"digest":1,"file":"x"}}', "features", "nodes"])
    | st.just(h5py.Empty("f4"))
)


def _fuzz_attributes(tmp_path, name, value, of):
    path, whole = tmp_path / "features.h5", tmp_path / "whole.h5"
    if not whole.exists():
        helpers.write(whole)
    path.write_bytes(whole.read_bytes())
    with h5py.File(path, "r+") as file:
        try:
            (file if of == "/" else file[of]).attrs[name] = value
        except (ValueError, TypeError, UnicodeEncodeError, OSError):
            return  # what HDF5 cannot hold cannot come from it
    for verify in (False, True):
        with bounded():
            inspect_artifact(path, Console(quiet=True), verify=verify)


test_configurations = fuzz(edits=EDITS)(_fuzz_config)
test_texts = fuzz(kind=st.sampled_from(sorted(TEXTS)), edits=EDITS)(_fuzz_texts)
test_stations = fuzz(kind=st.sampled_from(sorted(STATIONS)), edits=EDITS)(_fuzz_stations)
test_places = fuzz(edits=EDITS)(_fuzz_places)
test_masks = fuzz(mode=st.sampled_from(["P", "L", "RGB", "1", "I;16", "LA"]), edits=EDITS)(_fuzz_masks)
test_matrices = fuzz(kind=st.sampled_from(["csv", "npz", "h5"]), edits=EDITS)(_fuzz_matrices)
test_attributes = fuzz(
    name=st.sampled_from([*HEADER, "provenance", "header_digest", "about", "axes"]),
    value=ATTRIBUTES,
    of=st.sampled_from(["/", "/", "features", "id"]),
)(_fuzz_attributes)


# --- made by hand, since chance does not find them ------------------------------------------------------------------


LAUGHS = "dataset_options:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "distill: {nodes: *a5}\n",
        "distill: {nodes: &a [*a]}",
        "x: " + "[" * 5000,
        "# " * 2**20,
    ],
)
def test_configurations_that_stand_for_too_much(tmp_path, text):
    (tmp_path / "settings.yaml").write_text(text)
    with bounded(), pytest.raises(CmglError, match=r"settings\.yaml") as caught:
        build_run(tmp_path / "settings.yaml", environment={})
    assert len(str(caught.value)) < 1000
    with bounded():
        build_run(flags={"dataset_options": text}, environment={})


@pytest.mark.parametrize("seed", [2**53 + 1, "9007199254740993"])
def test_large_whole_numbers_are_not_rounded(seed):
    run = build_run(flags={"limit": seed}, stage="extract", environment={})
    assert run.stages["extract"].limit == 2**53 + 1


def test_seeds_that_a_generator_would_refuse_are_refused_at_once():
    with pytest.raises(CmglError, match="at most 4294967295"):
        build_run(flags={"seed": 2**32}, environment={})


def test_a_small_file_of_a_hollow_table_is_refused(tmp_path):
    """Every row its own station and its own hour: a square of cells for a line of rows."""
    hours = np.datetime64("2000-01-01T00") + np.arange(20_000)
    rows = [f"s{i},{hour},1" for i, hour in enumerate(hours)]
    (tmp_path / "tidy.csv").write_text("\n".join(["station,time,x", *rows]))
    with bounded(), pytest.raises(CmglError, match="nearly empty"):
        read_stations(tmp_path / "tidy.csv")
    names = [f"s{i},e{i}(mm)" for i in range(3000)]
    head = [",".join(["", *(n.split(",")[0] for n in names)]), ",".join(["年月日", *(n.split(",")[1] for n in names)])]
    body = [",".join([f"2000/1/{day}", *["1"] * 3000]) for day in range(1, 29)]
    text = "\r\n".join(["ダウンロードした時刻：2024/01/02 03:04:05", "", *head, *body, ""])
    (tmp_path / "agency.csv").write_bytes(text.encode("cp932"))
    with bounded(), pytest.raises(CmglError, match="nearly empty"):
        read_stations(tmp_path / "agency.csv")
