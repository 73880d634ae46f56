"""What a station record is about: the variables it measures and the places where."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Variable:
    """A measured quantity.

    Attributes
    ----------
    name : str
        Its name.
    lower, upper : float or None
        Physical bounds; fills are kept within, observations are not touched.
    """

    name: str
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Stations:
    """Where the stations are.

    Attributes
    ----------
    names : sequence of str
        One a station.
    latitude, longitude : ndarray or None
        Degrees; None where unknown (the method then has no map to lean on).
    elevation : ndarray or None
        Metres.
    """

    names: Sequence[str]
    latitude: Array | None = None
    longitude: Array | None = None
    elevation: Array | None = None

    def coordinates(self) -> Array | None:
        """Return east, north (km) and elevation (in tens of metres), shape (n_stations, 2 or 3)."""
        if self.latitude is None or self.longitude is None:
            return None
        north = np.asarray(self.latitude, float) * 111.195
        east = np.asarray(self.longitude, float) * 111.195 * np.cos(np.radians(np.mean(self.latitude)))
        columns = [east, north]
        if self.elevation is not None and np.isfinite(self.elevation).all():
            columns.append(np.asarray(self.elevation, float) / 10)
        return np.stack(columns, axis=1)
