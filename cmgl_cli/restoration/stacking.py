"""Weights of several fits by their errors on cells that none has seen."""

import numpy as np
from scipy.optimize import nnls
from torch import Tensor


def stacking_weights(errors: Tensor) -> list[float]:
    """Return the weights, none negative and of sum one, with which a mean of fits has the least squared error.

    Parameters
    ----------
    errors : Tensor, shape (n_cells, n_fits)
        Of every fit on cells that it has not seen; the first fit has all the weight where there are no cells.

    Notes
    -----
    Breiman, Stacked regressions, Machine Learning 24, 1996. Non-negative least squares of zero by the errors and of one
    by the weights' sum gives the solution up to its scale, whatever the errors' unit.
    """
    table = errors.double().numpy()
    unit = float(np.sqrt((table**2).sum())) or 1.0
    solution = nnls(np.vstack([table / unit, np.ones(table.shape[1])]), np.append(np.zeros(len(table)), 1.0))[0]
    return [float(weight) for weight in solution / solution.sum()]
