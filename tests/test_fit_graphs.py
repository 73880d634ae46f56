"""`cmgl fit-graphs` by itself: covariances and priors of the user's own, criteria, resuming, exports, bad input."""

import csv
import signal
import time
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

import cmgl_cli.graphs.selection
from cmgl_cli.artifacts import open_artifact, read_header
from cmgl_cli.graphs import correlation, fit_joint
from tests.cli_helpers import cmgl, start
from tests.test_cli import encoder, finished, workplace  # noqa: F401 (fixtures)

POINT = ["--rho", 0.1, "--gamma", 0.1, "--k", 5, "--no-preserve-penalty"]
NAMES = ["left", "right", "top"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def covariances(n_classes=3, p=6, n=80, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_classes, n, p))
    x[:, :, 1] += x[:, :, 0]
    x[0, :, 3] += x[0, :, 2]
    return np.array([np.cov(block.T, bias=True) for block in x])


def save(path="cov.npz", **more):
    arrays = {"covariance": covariances(), "n_samples": [80] * 3, "classes": NAMES} | more
    np.savez(path, **{key: values for key, values in arrays.items() if values is not None})


def prior(n_classes=3, p=6, seed=1):
    values = np.random.default_rng(seed).random((n_classes, p, p))
    return (values + values.transpose(0, 2, 1)) / 2


def fit(*more, output="graphs.h5", code=0):
    return cmgl("fit-graphs", "--covariance", "cov.npz", "--output", output, *more, code=code)


def test_covariances_need_no_other_stage(place):
    save(nodes=[f"gene {i}" for i in range(6)])
    fit("--rho", 0.1, "--gamma", 0.2)
    expected = fit_joint(correlation(covariances()), 0.5, 0.1, 0.4, tol=1e-9)
    with open_artifact("graphs.h5", verify=True) as found:
        np.testing.assert_allclose(found["precision"], expected.precision, atol=1e-6)
        assert found["classes"].tolist() == NAMES and found["modality"].tolist() == ["given"]
        assert found.provenance["solver"] == expected.solver == "splitting"
        assert found["nodes"][2] == "gene 2" and found["counts"].tolist() == [80] * 3 and "means" not in found
    assert "up to date" in fit("--rho", 0.1, "--gamma", 0.2).err
    assert "splitting" in cmgl("inspect", "graphs.h5").out
    save(covariance=covariances(seed=3))
    assert "digest of the covariance changed" in fit("--rho", 0.1, "--gamma", 0.2).err


def test_hdf5_and_npy_hold_covariances_too(place):
    save()
    fit(*POINT, "--k", 0)
    with h5py.File("cov.h5", "w") as file:
        file["covariance"], file["n_samples"] = covariances(), 80
        file.create_dataset("classes", data=np.array(NAMES, dtype=object), dtype=h5py.string_dtype())
    np.save("cov.npy", covariances()[0])
    cmgl("fit-graphs", "--covariance", "cov.h5", *POINT, "--k", 0)
    cmgl("fit-graphs", "--covariance", "cov.npy", "-o", "one.h5", *POINT, "--k", 0)
    with open_artifact("graphs.h5") as first, open_artifact("artifacts/cov/graphs.h5") as second:
        np.testing.assert_array_equal(first["precision"], second["precision"])
    with open_artifact("one.h5") as one:
        assert one["precision"].shape == (1, 6, 6) and one["counts"].tolist() == [0]


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "named.csv", "h5", "artifact.h5"])
def test_a_prior_of_ones_own_in_every_format(place, request, kind):
    save()
    own = prior(1)[0] if "csv" in kind else prior()
    path = place / f"prior.{kind}"
    if kind == "npz":
        np.savez(path, prior=own[[2, 0, 1]], classes=[NAMES[i] for i in (2, 0, 1)])
    elif kind == "npy":
        np.save(path, own)
    elif kind == "csv":
        np.savetxt(path, own, delimiter=",")
    elif kind == "named.csv":
        rows = [["", *"abcdef"], *([name, *row] for name, row in zip("abcdef", own.tolist(), strict=True))]
        path.write_text("\n".join(",".join(map(str, row)) for row in rows))
        save(nodes=list("abcdef"))
    else:
        with h5py.File(path, "w") as file:
            file["prior"] = own
            if kind == "artifact.h5":
                file["image/overlap"] = own[::-1]
    fit("--prior", path, *POINT)
    weights = 1 / (1 + np.exp(5 * (own - 0.5)))
    expected = fit_joint(correlation(covariances()), weights, 0.1, 0.1, weight_floor=0.01, tol=1e-9)
    with open_artifact("graphs.h5") as found:
        np.testing.assert_allclose(found["precision"], expected.precision, atol=1e-6)


def test_an_own_prior_replaces_the_artifact(workplace):  # noqa: F811
    with open_artifact(workplace / "prior.h5") as found:
        values, classes = found["prior"], found["classes"]
    np.savez("own.npz", prior=values, classes=classes.astype(str))
    (workplace / "prior.h5").unlink()
    before = workplace / "graphs.h5"
    with open_artifact(before) as found:
        precision = found["precision"]
    options = ["--k", "0,10", "--rho", 0.1, "--gamma", 0.1, "--select", "ebic", "--observations", "image"]
    cmgl("fit-graphs", "--dataset", "smoke", "--prior", "own.npz", *options)
    with open_artifact(before) as found:
        np.testing.assert_array_equal(found["precision"], precision)
        assert "own_prior" in found.identity.digests and "prior" not in found.inputs


BAD_PRIORS = {
    "shape": ({"prior": np.ones((5, 5))}, "5 nodes, the observations have 6"),
    "classes": ({"prior": prior(2)}, "2 classes, the observations have 3"),
    "names": ({"prior": prior(), "classes": ["left", "right", "Top"]}, "no class 'top'"),
    "range": ({"prior": prior() + 0.5}, "must lie in [0, 1]"),
    "negative": ({"prior": prior() - 0.9}, "must lie in [0, 1]"),
    "asymmetric": ({"prior": np.random.default_rng(0).random((6, 6))}, "not symmetric"),
    "nan": ({"prior": np.full((6, 6), np.nan)}, "36 values are not finite"),
    "not square": ({"prior": np.ones((6, 5))}, "must be square"),
    "no such array": ({"a": np.ones((6, 6)), "b": np.ones((6, 6))}, "there is no array 'prior'"),
    "text": ({"prior": np.array([["a"] * 6] * 6)}, "must hold numbers"),
    "pickles": ({"prior": np.array([{}], dtype=object)}, "objects (pickles)"),
}


@pytest.mark.parametrize("name", BAD_PRIORS)
def test_bad_priors_are_named(place, name):
    save()
    arrays, message = BAD_PRIORS[name]
    np.savez("mine.npz", **arrays)
    error = fit("--prior", "mine.npz", *POINT, code=3).err
    assert message in error and "mine.npz" in error and "mend:" in error
    assert not (place / "graphs.h5").exists()


def _changed(index, value, mirror=True):
    values = covariances()
    values[index] = value
    if mirror:
        values[index[0], index[2], index[1]] = value
    return values


BAD_COVARIANCES = {
    "not psd": ({"covariance": _changed((1, 0, 1), 5.0)}, "not positive semi-definite"),
    "asymmetric": ({"covariance": _changed((2, 0, 1), 0.5, mirror=False)}, "not symmetric"),
    "nan": ({"covariance": _changed((0, 2, 3), np.nan)}, "covariance[0, 2, 3] = nan"),
    "zero variance": ({"covariance": covariances() * (np.arange(6) != 2) * (np.arange(6) != 2)[:, None]}, "node2"),
    "names": ({"classes": ["a", "b"]}, "2 names for 3"),
    "twice": ({"classes": ["a", "b", "a"]}, "a name occurs twice"),
    "counts": ({"n_samples": [80, 80]}, "'n_samples' does not fit"),
    "count of zero": ({"n_samples": [80, 0, 80]}, "n_samples[1] = 0"),
    "not square": ({"covariance": np.ones((3, 6, 5))}, "must be square"),
    "missing": ({"covariance": None}, "there is no array 'covariance'"),
}


@pytest.mark.parametrize("name", BAD_COVARIANCES)
def test_bad_covariances_are_named(place, name):
    arrays, message = BAD_COVARIANCES[name]
    save(**arrays)
    error = fit(*POINT, code=3).err
    assert message in error and "cov.npz" in error and "mend:" in error
    assert not (place / "graphs.h5").exists()


def test_files_that_are_no_matrices(place):
    (place / "cov.npz").write_bytes(b"PK\x03\x04 torn")
    assert "cannot be read" in fit(*POINT, code=3).err
    (place / "cov.npz").unlink()
    assert "does not exist" in fit(*POINT, code=3).err
    save()
    (place / "p.csv").write_text("1,0.5\n0.5,x\n")
    assert "'x' is not a number" in fit("--prior", "p.csv", *POINT, code=3).err
    (place / "p.mat").write_text("")
    assert "unknown kind of file" in fit("--own-prior", "p.mat", *POINT, code=3).err
    assert "takes the place of all observations" in fit("--nodes", "cov.npz", code=2).err


def test_counts_are_asked_for_only_where_they_are_needed(place):
    save(n_samples=None)
    assert "needs the number of samples" in fit("--rho", "0.1,0.2", "--gamma", 0.1, code=2).err
    assert "holding out" in fit(*POINT, "--rho", "0.1", "--k", "0", "--stability", 3, code=2).err
    outcome = fit("--rho", 0.1, "--gamma", 0.1)
    assert "not given" in outcome.out
    save(n_samples=[4] * 3)
    error = fit("--rho", "0.1,0.2", "--select", "held-out", code=2).err
    assert "less than the rank" in error


def test_one_class_one_node_and_a_pathless_problem(place):
    save(covariance=covariances()[:1], classes=["only"], n_samples=80)
    fit("--rho", "0.1,0.2", "--gamma", 0.1)
    save(covariance=np.ones((2, 1, 1)) * 3, classes=None, n_samples=20)
    outcome = fit("--rho", "0.1,0.2", output="single.h5")
    assert "0 of 0" in outcome.out
    with open_artifact("single.h5") as found:
        np.testing.assert_allclose(found["precision"], 1)
        np.testing.assert_allclose(found["scale"], np.sqrt(3))
    singular = np.ones((2, 4, 4))
    save(covariance=singular, classes=None, n_samples=20)
    assert "unbounded" in fit("--rho", 0.1, "--gamma", 0, output="never.h5", code=3).err
    save()
    error = fit("--rho", 0.01, "--gamma", 0.01, "--max-iter", 1, "--solver", "admm", output="slow.h5", code=6).err
    assert "certified gap" in error and "--allow-unconverged" in error
    assert not (place / "slow.h5").exists()


@pytest.mark.parametrize("select", ["held-out", "ebic", "stability"])
def test_every_criterion_from_covariances(place, select):
    save()
    np.savez("p.npz", prior=prior())
    fit(
        "--select", select, "--rho", "0.1,0.3", "--gamma", "0.1,0.3", "--k", "0,5", "--prior", "p.npz", "--stability", 5
    )
    with open_artifact("graphs.h5") as found:
        table = found.group("selection")
        assert table["criterion"].tolist() == [select]
        assert table["k_criterion"].tolist() == ["ebic" if select == "ebic" else "held-out"]
        assert table["heldout"].shape == (4, 0 if select == "ebic" else 5, 2, 3)
        assert np.isfinite(table["instability"]).all() == (select == "stability")
        assert table["at_edge"].tolist() != [""]
        assert found["stability/frequency"].max() <= 1
    assert (place / "graphs-path.png").exists()


def test_validation_accuracy_is_a_criterion(workplace):  # noqa: F811
    options = ["--select", "score", "--rho", "0.1,0.3", "--gamma", "0.1,0.3", "--k", "0,10", "--folds", 2]
    cmgl("fit-graphs", "--dataset", "smoke", *options, "--select-k", "ebic", "--observations", "both")
    for name in ("graphs.h5", "patch_graphs.h5"):
        with open_artifact(workplace / name) as found:
            score = found["selection/score"]
            assert ((score >= 0) & (score <= 1)).all() and found["selection/criterion"].tolist() == ["score"]


def test_midpoints(place):
    save()
    np.savez("p.npz", prior=prior())
    fit("--prior", "p.npz", *POINT, "--midpoint", "quantile:0.8", output="a.h5")
    fit("--prior", "p.npz", *POINT, "--midpoint", "quantile:0.2", output="b.h5")
    with open_artifact("a.h5") as first, open_artifact("b.h5") as second:
        assert (first["weights"] > second["weights"])[:, ~np.eye(6, dtype=bool)].all()
    assert "[0, 1]" in fit("--prior", "p.npz", *POINT, "--midpoint", "quantile:2", output="c.h5", code=2).err
    assert "midpoint = 'half'" in fit("--prior", "p.npz", *POINT, "--midpoint", "half", output="c.h5", code=2).err


def test_killed_in_the_middle_goes_on_cell_by_cell(place, monkeypatch):
    save(covariance=covariances(p=25, n=60), n_samples=60)
    np.savez("p.npz", prior=prior(p=25))
    options = ["--prior", "p.npz", "--k", "0,5,20", "--rho", "0.1,0.2,0.3", "--gamma", "0.1,0.2,0.3"]
    options += ["--select", "ebic", "--k-shared", "--no-figures"]
    process = start("fit-graphs", "--covariance", "cov.npz", "--output", "graphs.h5", *options, folder=place)
    checkpoint, end = place / "graphs.checkpoint.partial.h5", time.time() + 60
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.time() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with h5py.File(checkpoint) as file:
        done = len(file["rho"])
    assert 1 <= done < 9
    fits = []
    monkeypatch.setattr(cmgl_cli.graphs.selection, "fit_joint", lambda *a, **b: fits.append(1) or fit_joint(*a, **b))
    assert f"going on, {done} of 9 cells" in fit(*options).err
    assert len(fits) == (9 - done) * 3 + 1
    fit(*options, output="whole.h5")
    assert read_header("graphs.h5")[1] == read_header("whole.h5")[1]
    assert not list(place.glob("*partial*"))


def test_edges_as_csv_graphml_and_npz(place):
    save(nodes=[f"gene <{i}> & co" for i in range(6)])
    for suffix in ("csv", "graphml", "npz"):
        fit(*POINT, "--stability", 4, "--edges", f"edges.{suffix}", "--force")
    with open("edges.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = "class i j weight partial_correlation common_share specific_share stability source target".split()
    assert list(rows[0]) == wanted
    with np.load("edges.npz") as arrays:
        assert arrays["class"].tolist() == [row["class"] for row in rows]
        np.testing.assert_array_equal(arrays["weight"], [float(row["weight"]) for row in rows])
    tag = "{http://graphml.graphdrawing.org/xmlns}"
    graph = ElementTree.parse("edges.graphml").getroot().find(f"{tag}graph")
    nodes = {node.get("id"): node.find(f"{tag}data").text for node in graph.iter(f"{tag}node")}
    assert list(nodes.values()) == [f"gene <{i}> & co" for i in range(6)]
    edges = list(graph.iter(f"{tag}edge"))
    assert len(edges) == len(rows)
    for edge, row in zip(edges, rows, strict=True):
        data = {item.get("key"): item.text for item in edge}
        assert nodes[edge.get("source")] == row["source"] and nodes[edge.get("target")] == row["target"]
        assert data["class"] == row["class"] and float(data["weight"]) == float(row["weight"])
        assert 0 <= float(data["stability"]) <= 1
    assert "use .csv, .graphml, .npz" in fit(*POINT, "--edges", "edges.gexf", "--force", code=2).err


def test_graphs_of_covariances_cannot_classify(workplace):  # noqa: F811
    with open_artifact(workplace / "graphs.h5") as found:
        np.savez("cov.npz", covariance=found["covariance"], classes=found["classes"].astype(str))
    fit("--rho", 0.1, "--gamma", 0.1, output=workplace / "graphs.h5")
    (workplace / "patch_graphs.h5").unlink()
    assert "--covariance" in cmgl("classify", "--dataset", "smoke", code=3).err
