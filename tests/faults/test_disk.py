"""A full disk at any write, a read-only folder, a clock set back, two writers, a reader during a publish."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from cmgl_cli.artifacts import open_artifact, read_header
from tests.artifacts import helpers
from tests.faults.farm import HOME, WORKS, made_by
from tests.faults.nursery import DISK_FULL, NO_FALLOCATE, Fate
from tests.faults.test_kills import check_finals, leftovers

PLACES = 20
WITH_BLOCKS = ("extract", "distill", "segment predict")


def explained(report, codes):
    """Three lines at most, and no word of a bug."""
    assert report.code in codes, f"exit {report.code}\n{report.err}"
    assert "Traceback" not in report.err and "this is a bug" not in report.err
    return report.err


def fill_and_rerun(farm, folder, work, fates):
    """Let the disk be full from a call on, then run again with room."""
    place, command, refused = farm.copy(folder, work), WORKS[work].arguments, 0
    for fate in fates:
        report = farm.nursery.run(place, command, fate)
        error = explained(report, (0, 3))
        check_finals(farm, place, work)
        refused += report.code != 0
        assert report.code == 0 or "No space left on device" in error, error
        if report.code == 0:
            for path in made_by(place, work):
                path.unlink()
    report = farm.nursery.run(place, command)
    assert report.code == 0, report.err
    check_finals(farm, place, work)
    assert not leftovers(place)
    return refused


def places(farm, folder, work, count):
    if not farm.nursery.counts_calls:
        pytest.skip("filling the disk at a call needs Linux and a C compiler")
    measured = farm.nursery.run(farm.copy(folder, work), WORKS[work].arguments)
    rng = np.random.default_rng(1)
    chosen = rng.choice(np.arange(1, measured.calls + 1), min(count, measured.calls), replace=False)
    # every second time on a file system that sets nothing aside, so that HDF5 meets the full disk itself
    return [Fate(mode=(DISK_FULL, NO_FALLOCATE)[i % 2], at=int(call)) for i, call in enumerate(chosen)]


def test_a_disk_that_fills(farm, tmp_path):
    assert fill_and_rerun(farm, tmp_path / "full", "extract", places(farm, tmp_path / "measured", "extract", 4)) >= 2


@pytest.mark.faults
@pytest.mark.parametrize("work", list(WORKS))
def test_a_disk_that_fills_anywhere(farm, tmp_path, work):
    assert fill_and_rerun(farm, tmp_path / "full", work, places(farm, tmp_path / "measured", work, PLACES)) >= 2


@pytest.mark.parametrize("work", ["prior"])
def test_a_folder_that_cannot_be_written(farm, tmp_path, work):
    place = farm.copy(tmp_path / "locked", work)
    (place / HOME).chmod(0o555)
    try:
        if os.access(place / HOME, os.W_OK):
            pytest.skip("this user may write anywhere")
        error = explained(farm.nursery.run(place, WORKS[work].arguments), (3,))
        assert str(HOME) in error and "Permission denied" in error
    finally:
        (place / HOME).chmod(0o755)


def test_a_folder_that_is_a_file(farm, tmp_path):
    place = farm.copy(tmp_path / "odd", "prior")
    (place / "elsewhere").write_text("a file")
    command = [*WORKS["prior"].arguments, "--output", "elsewhere/prior.h5"]
    assert "elsewhere" in explained(farm.nursery.run(place, command), (3,))


@pytest.mark.parametrize("shift", [-(10**9), 10**9])
def test_time_stamps_never_count(farm, tmp_path, shift):
    """An output far older, or newer, than its input is up to date as long as the digests agree."""
    place = farm.copy(tmp_path / "late", "prior")
    assert farm.nursery.run(place, WORKS["prior"].arguments).code == 0
    os.utime(place / HOME / "nodes.h5", (time.time() + shift,) * 2)
    report = farm.nursery.run(place, WORKS["prior"].arguments)
    assert report.code == 0 and "up to date" in report.err
    os.utime(place / HOME / "prior.h5", (0, 0))
    assert "up to date" in farm.nursery.run(place, WORKS["prior"].arguments).err


def test_a_clock_set_back_while_writing(tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    helpers.write(tmp_path / "features.h5")
    with open_artifact(tmp_path / "features.h5", verify=True) as found:
        assert found.provenance["seconds"] >= 0
    monkeypatch.undo()
    assert read_header(tmp_path / "features.h5")[1] == _digest(tmp_path / "again" / "features.h5")


def _digest(path):
    helpers.write(path)
    return read_header(path)[1]


def test_the_second_of_two_writers_is_told_who_the_first_is(farm, tmp_path):
    place = farm.copy(tmp_path / "two", "prior")
    with create_artifact_in_another_process(place / HOME / "prior.h5") as holder:
        error = explained(farm.nursery.run(place, WORKS["prior"].arguments), (5,))
        assert f"process {holder} on" in error
    assert farm.nursery.run(place, WORKS["prior"].arguments).code == 0
    check_finals(farm, place, "prior")


class create_artifact_in_another_process:  # noqa: N801
    """Hold the lock of an output in a child, which is killed in the end and so cannot tidy up."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        ready, say = os.pipe()
        self.child = os.fork()
        if not self.child:
            from cmgl_cli.artifacts.locking import output_lock

            with output_lock(self.path):
                os.write(say, b"x")
                time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        return self.child

    def __exit__(self, *exc_info):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)


def test_readers_see_the_old_or_the_new_file_whole(tmp_path):
    """While one thread publishes again and again, others always find a file that verifies."""
    import dataclasses

    path, stop, seen, problems = tmp_path / "features.h5", threading.Event(), set(), []
    helpers.write(path)

    def read():
        while not stop.is_set():
            try:
                with open_artifact(path, verify=True) as found:
                    seen.add(found.config["encoder"])
            except Exception as error:  # noqa: BLE001 (whatever a reader meets is a failure)
                problems.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(12):
        helpers.write(path, dataclasses.replace(helpers.IDENTITY, config={"encoder": str(number)}))
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems and len(seen) > 1
