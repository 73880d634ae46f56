"""Streamed patch scores equal the sum over single patches; the fit's moments equal those of all patches at once."""

import numpy as np
import pytest

from cmgl_cli import sufficient
from cmgl_cli.artifacts import SampleTable, open_artifact
from cmgl_cli.console import Console
from cmgl_cli.graphs import draws
from cmgl_cli.heads import GraphDiscriminant
from cmgl_cli.observations import PatchScorer, class_scope, patch_observations
from cmgl_cli.sufficient import Study
from tests.cli_helpers import SMALL, cmgl
from tests.test_cli import encoder, finished, workplace  # noqa: F401 (fixtures)


@pytest.fixture
def opened(workplace):  # noqa: F811
    with open_artifact(workplace / "nodes.h5") as nodes, open_artifact(workplace / "features.h5") as features:
        yield {"nodes": nodes, "features": features}


def study(opened, scope):
    return Study(opened, "patch", "image", scope, 0, Console(quiet=True))


@pytest.mark.parametrize("scope", ["pooled", "class"])
def test_scores_of_images_are_sums_over_their_patches(opened, scope):
    transform = study(opened, scope).statistics().transform
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((2, 4, 4))
    model = GraphDiscriminant(factors @ factors.transpose(0, 2, 1) + np.eye(4), rng.standard_normal((2, 4)))
    rows = np.array([1, 5, 6, 14])
    scorer = PatchScorer(opened["nodes"], opened["features"], transform, rows, 2)
    for _ in range(2):  # the second pass comes from memory
        scores = scorer.scores({"model": model})["model"]
        for score, (_, patches) in zip(scores, patch_observations(*opened.values(), rows), strict=True):
            if scope == "class":
                values, jacobian = class_scope(transform, patches, 2)
                for label in range(2):
                    np.testing.assert_array_equal(values[:, label], transform.transform(patches, label))
                    np.testing.assert_array_equal(jacobian[:, label], transform.log_jacobian(patches, label))
                single = model.scores(values, log_jacobian=jacobian)
            else:
                single = model.scores(transform.transform(patches))
            np.testing.assert_allclose(score, single.sum(axis=0), rtol=1e-9)


def test_moments_are_those_of_all_training_patches(opened):
    statistics = study(opened, "pooled").statistics()
    table = SampleTable.read(opened["nodes"], "image")
    train = np.flatnonzero(table.parts == "train")
    for label in range(2):
        rows = train[table.label[train] == label]
        values = np.concatenate([v for _, v in patch_observations(*opened.values(), rows)])
        transformed = statistics.transform.transform(values)
        np.testing.assert_allclose(statistics.whole.means[label], transformed.mean(axis=0), atol=1e-10)
        expected = np.cov(transformed.T, bias=True)
        np.testing.assert_allclose(statistics.whole.covariances()[label], expected, atol=1e-10)


@pytest.mark.parametrize("budget", [2**29, 1], ids=["one pass", "a pass each"])
def test_subsamples_of_images_are_those_of_all_their_patches(opened, monkeypatch, budget):
    monkeypatch.setattr(sufficient, "SUBSAMPLE_BYTES", budget)
    one = study(opened, "pooled")
    transform, table = one.statistics().transform, SampleTable.read(opened["nodes"], "image")
    train = np.flatnonzero(table.parts == "train")
    found = list(one.resamples(transform, 3, seed=4))
    drawn = [train[rows] for rows in draws(table.label[train] + 1, 3, seed=4)]
    assert len(found) == 3 and any(not np.array_equal(drawn[0], other) for other in drawn[1:])
    for matrices, rows in zip(found, drawn, strict=True):
        for label in range(2):
            chosen = np.sort(rows[table.label[rows] == label])
            patches = np.concatenate([values for _, values in patch_observations(*opened.values(), chosen)])
            np.testing.assert_allclose(matrices[label], np.corrcoef(transform.transform(patches).T), atol=1e-10)


def test_edges_of_patches_come_with_a_frequency(workplace):  # noqa: F811
    point = ["--rho", "0.1", "--gamma", "0.1", "--k", "0", "--observations", "patch", "--stability", 6]
    cmgl("fit-graphs", "--dataset", "smoke", *point)
    with open_artifact(workplace / "patch_graphs.h5") as found:
        frequency = found["stability/frequency"]
        np.testing.assert_allclose(frequency * 6, np.round(frequency * 6), atol=1e-12)
        fitted = (found["precision"] != 0) & ~np.eye(4, dtype=bool)
        assert frequency[fitted].mean() > 0.5
    cmgl("fit-graphs", "--dataset", "smoke", *point, "--select", "stability", "--rho", "0.1,0.5", "--force")
    with open_artifact(workplace / "patch_graphs.h5") as found:
        assert found["selection/criterion"].tolist() == ["stability"]


def test_a_given_share_of_the_common_mean_is_used_as_given(workplace):  # noqa: F811
    point = ["classify", "--dataset", "smoke", "--shrinkage", "1", "--mean-shrinkage"]
    chosen = {}
    for share in ("0.25", "1"):
        cmgl(*point, share, "--force")
        with open_artifact(workplace / "classification.h5") as found:
            rows = found.group("table")
        chosen[share] = rows["chosen"][rows["method"].tolist().index("graph classifier (image)")]
    # classes that share graph and mean score alike, and no temperature is better than another
    assert chosen["1"] == "shrinkage 1, mean shrinkage 1, temperature 1"
    assert chosen["0.25"].startswith("shrinkage 1, mean shrinkage 0.25, temperature ")
    assert "mean_shrinkage = '1.5'" in cmgl(*point, "1.5", code=2).err


def test_a_transform_for_every_class_goes_through_the_whole_chain(workplace):  # noqa: F811
    cmgl("fit-graphs", "--dataset", "smoke", *SMALL["fit-graphs"], "--scope", "class")
    outcome = cmgl("classify", "--dataset", "smoke", "--json").json
    assert 0 <= outcome["classify"]["accuracy"] <= 1
    with open_artifact(workplace / "graphs.h5") as found:
        assert found["transform/class_scope"]
        np.testing.assert_allclose(found["means"], 0, atol=1e-9)
