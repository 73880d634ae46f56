"""Random checkpoints and images for the encoder tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.encoders.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, torch.nn.Module]]:
    """Return a function from a family's name to its checkpoint folder and the model it was saved from."""
    made: dict[str, tuple[Path, torch.nn.Module]] = {}

    def make(family: str) -> tuple[Path, torch.nn.Module]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = folder, write_checkpoint(family, folder)
        return made[family]

    return make


@pytest.fixture
def images() -> list[Image.Image]:
    """Return RGB images of various shapes, one of them a single pixel."""
    rng = np.random.default_rng(3)
    sizes = [(40, 40), (23, 57), (90, 31), (1, 1), (32, 32)]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
