"""What a patch means: linear maps of the patch, of what sets it apart from its image, and of its neighbours."""

import torch

from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.refinement import RefinedDecoder, SurroundedDecoder

GRID, WIDTH, N_CLASSES = (4, 5), 6, 3


def inputs(seed: int = 0) -> PatchInputs:
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(2, GRID[0] * GRID[1], WIDTH, generator=generator) * 3 + 2
    image = torch.rand(2, 3, 32, 40, generator=generator)
    return PatchInputs(patches, patches, patches, patches, GRID, image)


def layer() -> SurroundedDecoder:
    torch.manual_seed(1)
    return SurroundedDecoder(WIDTH, N_CLASSES, torch.arange(6.0), torch.arange(6.0) + 0.5)


def test_scores_are_those_of_the_three_views_side_by_side() -> None:
    """One patch after the other, neighbours named one by one."""
    decoder, seen = layer(), inputs()
    x = ((seen.patches - decoder.mean) / decoder.scale).unflatten(1, GRID)
    got = decoder(seen)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            near = x[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].mean((1, 2))
            views = torch.cat([x[:, row, column], x[:, row, column] - x.mean((1, 2)), near], dim=1)
            torch.testing.assert_close(got[:, :, row, column], decoder.classifier(views))


def test_what_sets_a_patch_apart_ignores_what_the_whole_image_shares() -> None:
    decoder, seen = layer(), inputs()
    with torch.no_grad():
        decoder.classifier.weight[:, :WIDTH] = 0
        decoder.classifier.weight[:, 2 * WIDTH :] = 0
    other = seen._replace(patches=seen.patches + torch.randn(2, 1, WIDTH))
    torch.testing.assert_close(decoder.scores(other), decoder.scores(seen), atol=1e-4, rtol=1e-4)


def test_looks_are_seen_with_the_cells_next_to_them() -> None:
    """A pixel that changes is noticed within 7 x 7 cells, by their looks, and by the cells next to these."""
    torch.manual_seed(2)
    decoder, seen = RefinedDecoder(WIDTH, N_CLASSES).eval(), inputs()
    torch.nn.init.normal_(decoder.last.weight)
    image = seen.image.clone()
    image[:, :, 0, 0] += 0.1
    # what the image shares, its mean, is kept
    image[:, :, 31, 39] -= 0.1
    changed = (decoder(seen._replace(image=image)) - decoder(seen)).abs().amax(1) > 1e-5
    assert changed[:, :5, :5].all()
    assert not changed[:, 5:11].any()
