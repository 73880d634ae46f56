"""Which patches of a row are real, when encoders give grids of different sizes."""

import numpy as np


class PatchValidity:
    """A row-sliceable mask [N, N_p], made from the patch grids on demand: True where a patch is real.

    Parameters
    ----------
    grids : ndarray of int, [N, 2]
        Patch rows and columns of every sample; patches beyond their product are padding.
    n_patches : int
        N_p.
    """

    dtype = np.dtype(bool)

    def __init__(self, grids: np.ndarray, n_patches: int):
        self._counts = grids.prod(axis=1)
        self.shape = (len(grids), n_patches)

    @property
    def any_padding(self) -> bool:
        """Whether some readable sample has fewer patches than the row is long."""
        return bool(((self._counts > 0) & (self._counts < self.shape[1])).any())

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the mask of a slice of rows."""
        return np.arange(self.shape[1])[None] < self._counts[rows, None]
