"""One bit flipped anywhere in any kind of artifact: verification notices whatever changes data, and nothing crashes."""

import shutil

import numpy as np
import pytest

from cmgl_cli.artifacts import SCHEMAS, open_artifact
from cmgl_cli.errors import CmglError
from tests.faults.farm import HOME, WORKS

POSITIONS = 200
WRITERS = {output: name for name, work in WORKS.items() for output in work.outputs}
# a command that reads the artifact, where there is one
READERS = {
    "renders": ("extract", "--modality", "text"),
    "features": ("distill",),
    "text_features": ("distill",),
    "masks": ("distill",),
    "nodes": ("prior",),
    "prior": ("fit-graphs", "--observations", "image"),
    "graphs": ("classify", "--observations", "image"),
    "decoder": ("segment", "--mode", "predict"),
}


def flipped(whole, place, bit):
    spoilt = bytearray(whole)
    spoilt[place] ^= 1 << bit
    return bytes(spoilt)


def positions(size, count, seed=0):
    rng = np.random.default_rng(seed)
    return zip(rng.integers(0, size, count).tolist(), rng.integers(0, 8, count).tolist(), strict=True)


def content(path, verify=False):
    """Return all that a stage could compute with: arrays and identity."""
    with open_artifact(path, verify=verify) as found:
        return {name: found[name] for name in found}, found.identity.attributes()


def same(one, other):
    arrays, header = one
    return (
        header == other[1]
        and arrays.keys() == other[0].keys()
        and all(
            np.array_equal(values, other[0][name], equal_nan=values.dtype.kind == "f")
            and values.dtype == other[0][name].dtype
            for name, values in arrays.items()
        )
    )


def notice(path, whole, good, count, seed=0):
    """Flip bits one at a time; return how many were noticed. What passes must not have changed anything."""
    noticed = 0
    for place, bit in positions(len(whole), count, seed):
        path.write_bytes(flipped(whole, place, bit))
        try:
            found = content(path, verify=True)
        except CmglError as error:
            assert path.name in error.where and error.fix
            noticed += 1
        else:
            assert same(good, found), f"bit {bit} of byte {place} changed data unnoticed"
    return noticed


def test_flips_in_small_artifacts(farm, tmp_path):
    farm.grow("prior")
    for output in ("nodes", "prior"):
        path = shutil.copy(farm.path(output), tmp_path)
        path = tmp_path / f"{output}.h5"
        assert notice(path, path.read_bytes(), content(path), 25) > 0


@pytest.mark.faults
@pytest.mark.parametrize("output", list(WRITERS))
def test_flips_are_noticed(farm, tmp_path, output):
    farm.grow(WRITERS[output])
    path = tmp_path / f"{output}.h5"
    shutil.copy(farm.path(output), path)
    noticed = notice(path, path.read_bytes(), content(path), POSITIONS)
    assert noticed > POSITIONS // 10


@pytest.mark.faults
def test_every_schema_is_spoilt(farm):
    farm.grow(list(WORKS)[-1])
    kinds = set()
    for output in WRITERS:
        with open_artifact(farm.path(output)) as found:
            kinds.add(found.schema)
    assert kinds == {*SCHEMAS}


@pytest.mark.faults
@pytest.mark.parametrize("output", list(READERS))
def test_no_stage_computes_on_a_flip_that_it_was_to_look_for(farm, tmp_path, output):
    """With --verify, a stage on a spoilt input stops, unless the flip changed nothing; without, it may not crash."""
    farm.grow("segment train")
    place = tmp_path / "spoilt"
    shutil.copytree(farm.folder, place)
    path = place / HOME / f"{output}.h5"
    whole, good = path.read_bytes(), content(path)
    command = (*READERS[output], "--config", "settings.yaml", "--force")
    for number, (position, bit) in enumerate(positions(len(whole), 10, seed=3)):
        path.write_bytes(flipped(whole, position, bit))
        verify = ("--verify",) if number % 2 else ()
        report = farm.nursery.run(place, (*command, *verify))
        assert report.code in (0, 2, 3, 4, 6), f"bit {bit} of byte {position}: exit {report.code}\n{report.err}"
        assert "Traceback" not in report.err and "this is a bug" not in report.err, report.err
        if verify and report.code == 0:
            assert same(good, content(path))
