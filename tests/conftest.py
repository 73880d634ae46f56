"""Fixtures every room's tests may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# continuous integration judges a change, not the luck of a draw; elsewhere every run explores anew
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets, or skip the test with the reason."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CMGL_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}: set CMGL_SHARED_DATA to run this test")
    return folder
