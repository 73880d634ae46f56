"""The eigendecomposition of small matrices, against LAPACK's."""

import numpy as np
import pytest

from cmgl_cli.graphs.eigen import SMALL, eigen


def _check(matrix: np.ndarray) -> None:
    before = matrix.copy()
    values, rows = eigen(matrix)
    size = max(np.abs(matrix).max(), np.finfo(float).tiny)
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_allclose(np.sort(values) / size, np.linalg.eigvalsh(matrix) / size, atol=1e-13 * len(matrix))
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(matrix)), atol=1e-13 * len(matrix))
    np.testing.assert_allclose((rows.T * values) @ rows / size, matrix / size, atol=1e-13 * len(matrix))


@pytest.mark.parametrize("p", [1, 2, 3, 20, SMALL, SMALL + 1])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_decomposes_random_matrices(p, scale):
    half = np.random.default_rng(p).standard_normal((p, p))
    _check((half + half.T) * scale)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((6, 6)),
        np.eye(7),
        np.diag(np.arange(5.0)),
        np.ones((30, 30)),
        np.eye(40) + np.eye(40, k=1) + np.eye(40, k=-1),
        np.kron(np.eye(4), np.ones((5, 5))),
        np.diag(10.0 ** -np.arange(20)) + 1e-12,
        np.abs(np.subtract.outer(np.arange(21.0), np.arange(21.0))),
    ],
    ids=["zero", "identity", "diagonal", "rank one", "tridiagonal", "repeated", "graded", "distances"],
)
def test_decomposes_special_matrices(matrix):
    _check(matrix)


def test_leaves_what_is_not_finite_to_lapack():
    with pytest.raises(np.linalg.LinAlgError):
        eigen(np.full((5, 5), np.nan))
