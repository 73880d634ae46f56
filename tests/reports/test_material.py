"""What a report is made from: artifacts sorted into runs, ancestors found by digest, and what is missing named."""

import shutil

import numpy as np
import pytest

from cmgl_cli.artifacts import Identity, create_artifact
from cmgl_cli.errors import InputError
from cmgl_cli.reports.material import Found, runs_of_files
from cmgl_cli.reports.sections.provenance import tree


def make(path, schema, stage, arrays, *, inputs=(), **config):
    """Write a small artifact that was made from others."""
    path.parent.mkdir(exist_ok=True, parents=True)
    entries = {one.stem: {"file": one.name, "digest": Found.at(one).digest} for one in inputs}
    with create_artifact(path, Identity(schema, 1, stage, 1, config, entries)) as out:
        for name, values in arrays.items():
            out.write(name, values)
    return path


def prior(path, value, **options):
    arrays = {
        "classes": np.array(["a", "b"], dtype=object),
        "prior": np.full((2, 3, 3), float(value)),
        "image/attention": np.full((2, 3, 4), 0.25),
        "image/overlap": np.ones((2, 3, 3)),
        "image/count": np.array([5, 5]),
    }
    return make(path, "prior", "prior", arrays, direction="self", **options)


def experiment(path, seed, inputs=()):
    arrays = {"parameters/seed": np.array([float(seed)]), "metrics/accuracy": np.array([0.5])}
    return make(path, "experiment", "experiment", arrays, inputs=inputs, seed=seed)


def test_what_it_was_made_from_is_found_beside_it(tmp_path):
    source = prior(tmp_path / "prior.h5", 0.5)
    (run,) = runs_of_files([experiment(tmp_path / "experiment.h5", 0, [source])])
    assert set(run.found) == {"experiment", "prior"} and not run.notes
    assert run.found["experiment"].given and not run.found["prior"].given
    assert [line.split()[:2] for line in tree(run).splitlines()] == [
        ["experiment.h5", run.found["experiment"].digest[7:19]],
        ["└─", "prior.h5"],
    ]


def test_another_file_in_its_place_is_not_taken_for_it(tmp_path):
    source = prior(tmp_path / "prior.h5", 0.5)
    result = experiment(tmp_path / "experiment.h5", 0, [source])
    source.unlink()
    prior(source, 0.7)
    (run,) = runs_of_files([result])
    assert set(run.found) == {"experiment"}
    assert "made from prior.h5" in run.notes[0] and "(not here)" in tree(run)


def test_a_source_may_lie_in_a_folder_of_its_own(tmp_path):
    source = prior(tmp_path / "shared" / "prior.h5", 0.5)
    results = [experiment(tmp_path / name / "experiment.h5", i, [source]) for i, name in enumerate("ab")]
    runs = runs_of_files([source, *results])
    assert [run.name for run in runs] == ["a", "b"]
    assert all(set(run.found) == {"experiment", "prior"} and not run.notes for run in runs)


def test_two_of_a_kind_in_one_folder_are_two_runs(tmp_path):
    results = [experiment(tmp_path / f"seed{i}.h5", i) for i in range(2)]
    assert [run.name for run in runs_of_files([*results, results[0]])] == [
        f"{tmp_path.name}/seed0",
        f"{tmp_path.name}/seed1",
    ]


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("not HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        runs_of_files([path])
    with pytest.raises(InputError, match="does not exist"):
        runs_of_files([tmp_path / "none.h5"])
    source = prior(tmp_path / "prior.h5", 0.5)
    result = experiment(tmp_path / "experiment.h5", 0, [source])
    shutil.copy(path, source)
    (run,) = runs_of_files([result])
    assert set(run.found) == {"experiment"}, "a broken source is missing, not fatal"
