"""One parent and one undisturbed experiment a worker, for all faults."""

import pytest

from tests.faults.farm import Farm
from tests.faults.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """Start the parent of all runs."""
    parent = Nursery(tmp_path_factory.mktemp("nursery"))
    yield parent
    parent.close()


@pytest.fixture(scope="session")
def farm(tmp_path_factory, nursery):
    """Make the undisturbed experiment; stages run in it as tests ask for them."""
    return Farm(tmp_path_factory.mktemp("farm") / "whole", nursery)
