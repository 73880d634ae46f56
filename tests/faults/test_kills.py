"""SIGKILL at any moment of any stage, then the same command again: nothing lost, nothing half-written, nothing left."""

import signal

import numpy as np
import pytest

from cmgl_cli.artifacts import open_artifact, read_header
from tests.faults.farm import WORKS, made_by
from tests.faults.nursery import KILL_BEFORE, KILL_TORN, Fate

MOMENTS, CALLS = 50, 20


def leftovers(folder):
    """Return what must not stay: unfinished files, locks, checkpoints."""
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if {".partial", ".lock", ".new"} & {*p.suffixes}
    )


def check_finals(farm, folder, work):
    """Whatever lies under a final name is whole."""
    for path in made_by(folder, work):
        with open_artifact(path, verify=True) as found:
            assert found.digest == farm.digests[path.stem], f"{path.name} is not what an undisturbed run writes"


def kill_and_rerun(farm, folder, work, fates):
    """Run and kill, each run going on from what the last one left, then let it finish; return how many were killed."""
    place, command, killed = farm.copy(folder, work), WORKS[work].arguments, 0
    for fate in fates:
        report = farm.nursery.run(place, command, fate)
        assert report.code in (0, -signal.SIGKILL), f"{fate}: exit {report.code}\n{report.err}"
        assert "Traceback" not in report.err
        check_finals(farm, place, work)
        killed += report.code != 0
        if report.code == 0:
            assert not leftovers(place), fate
            for path in made_by(place, work):
                path.unlink()
    report = farm.nursery.run(place, command)
    assert report.code == 0, report.err
    assert {path.stem for path in made_by(place, work)} == {*WORKS[work].outputs}
    check_finals(farm, place, work)
    assert not leftovers(place)
    return killed, place


def moments(farm, folder, work, count, seed=0):
    """Return `count` moments spread over the time that the stage takes here, and as many calls that it makes."""
    measured = farm.nursery.run(farm.copy(folder, work), WORKS[work].arguments)
    assert measured.code == 0, measured.err
    assert {path.stem: read_header(path)[1] for path in made_by(folder, work)}.items() <= farm.digests.items()
    rng = np.random.default_rng(seed)
    return [Fate(after=float(t)) for t in measured.seconds * rng.random(count)], measured.calls


def calls(count, total, seed=0):
    """Return fates at `count` of the calls that change files: before them, and in the middle of a write."""
    rng = np.random.default_rng(seed)
    places = rng.choice(np.arange(1, total + 1), min(count, total), replace=False)
    return [Fate(mode=(KILL_BEFORE, KILL_TORN)[i % 2], at=int(place)) for i, place in enumerate(places)]


@pytest.mark.parametrize("work", ["extract", "distill"])
def test_a_few_kills(farm, tmp_path, work):
    fates, total = moments(farm, tmp_path / "measured", work, 3)
    killed, _ = kill_and_rerun(farm, tmp_path / "killed", work, [*fates, *calls(4, total)])
    assert killed >= 2


@pytest.mark.faults
@pytest.mark.parametrize("work", list(WORKS))
def test_kills_at_any_moment(farm, tmp_path, work):
    fates, _ = moments(farm, tmp_path / "measured", work, MOMENTS)
    killed, _ = kill_and_rerun(farm, tmp_path / "killed", work, fates)
    assert killed >= MOMENTS // 4


@pytest.mark.faults
@pytest.mark.parametrize("work", list(WORKS))
def test_kills_at_calls_that_change_files(farm, tmp_path, work):
    if not farm.nursery.counts_calls:
        pytest.skip("counting calls needs Linux and a C compiler")
    _, total = moments(farm, tmp_path / "measured", work, 0)
    kill_and_rerun(farm, tmp_path / "killed", work, calls(CALLS, total))
