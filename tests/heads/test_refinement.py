"""What a patch means: linear maps of the patch, of what sets it apart from its image, and of its neighbours."""

import torch

from cmgl_cli.heads.appearance import appearance, fine_grid
from cmgl_cli.heads.catalogue import build_decoder
from cmgl_cli.heads.decoders import upsample
from cmgl_cli.heads.evidence import GraphEvidence, PatchInputs
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


def test_enlarging_before_the_layers_of_single_cells_is_the_same() -> None:
    """The slow order: everything is brought to the fine cells first, and joined there."""
    generator = torch.Generator().manual_seed(3)
    grid, p = (20, 20), 4
    observed = torch.randn(2, 400, p, generator=generator)
    seen = PatchInputs(torch.randn(2, 400, WIDTH, generator=generator), observed, observed, observed, grid)
    seen = seen._replace(image=torch.rand(2, 3, 160, 160, generator=generator))
    factors = torch.randn(N_CLASSES, 13 + p, 13 + p, generator=generator).double().numpy()
    precision = factors @ factors.transpose(0, 2, 1) + 10 * torch.eye(13 + p).double().numpy()
    means, priors = torch.zeros(N_CLASSES, 13 + p).numpy(), torch.full((N_CLASSES,), 1 / N_CLASSES).numpy()
    evidence = GraphEvidence(precision, precision.mean(0), means, priors, appearance=13)
    decoder = build_decoder("unet", evidence, WIDTH, 3).eval()
    assert isinstance(decoder, RefinedDecoder)
    for layer in (decoder.linear.classifier, decoder.last):
        torch.nn.init.normal_(layer.weight)
    cells = fine_grid(grid, 160)
    assert cells == (80, 80)
    assert decoder.likelihood(seen).shape[2:] == (60, 60)
    looks, scores = decoder.normalise(appearance(seen.image, cells)), decoder.likelihood(seen)
    meaning = torch.cat(
        [upsample(decoder.embedding(seen), cells), upsample(decoder.normalise_scores(scores), cells)], 1
    )
    weight = torch.cat([decoder.of_meaning.weight, decoder.of_scores.weight], 1)
    hidden = decoder.of_looks(looks) + torch.nn.functional.conv2d(meaning, weight)
    slow = upsample(decoder.linear(seen), cells) + decoder.log_strength.exp() * upsample(scores, cells)
    slow = slow + decoder.last(torch.nn.functional.gelu(hidden))
    torch.testing.assert_close(decoder(seen), slow, atol=1e-4, rtol=1e-4)
