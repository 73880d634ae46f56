"""One class against values of the R package glasso; `r_glasso.R` made them."""

from pathlib import Path

import numpy as np
import pytest

from cmgl_cli.graphs import fit_joint

ROWS = [
    line.split()
    for line in (Path(__file__).parent / "r_glasso.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("solver", ["descent", "splitting", "admm"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"p{row[0]}")
def test_one_class_is_the_weighted_glasso_of_r(row, solver):
    p = int(row[0])
    i = np.arange(1, p + 1)
    covariance = 0.5 * 0.7 ** np.abs(np.subtract.outer(i, i)) + 0.5 * np.outer(np.cos(i), np.cos(i))
    scale = 1 / np.sqrt(np.diag(covariance))
    weights = 0.02 + 0.1 * np.abs(np.sin(np.outer(i, i)))
    fit = fit_joint(covariance * np.outer(scale, scale), weights, 1.0, 1.0, tol=1e-12, solver=solver, max_iter=20000)
    np.testing.assert_allclose(fit.precision[0], np.array(row[1:], float).reshape(p, p), atol=1e-6)
