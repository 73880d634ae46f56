"""Training of decoders: the loss, the weights, and what tuning keeps."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cmgl_cli.errors import InputError
from cmgl_cli.heads.decoders import LinearDecoder
from cmgl_cli.heads.evidence import PatchInputs
from cmgl_cli.heads.segmentation_training import (
    DecoderSettings,
    SegmentationBatch,
    TrainingTask,
    Trial,
    class_weights,
    pixel_counts,
    pixel_loss,
    score_decoder,
    train_decoder,
    tune_decoder,
)

GRID, SIZE, N_CLASSES, WIDTH = (4, 4), (8, 8), 3, 6


def blobs(n: int = 12, seed: int = 0) -> list[SegmentationBatch]:
    """Images whose patches are their class's direction plus noise; class 2 is rare; some pixels are ignored."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(N_CLASSES, WIDTH, generator=torch.Generator().manual_seed(99))
    labels = torch.multinomial(torch.tensor([0.6, 0.37, 0.03]), n * 16, replacement=True, generator=generator)
    patches = directions[labels] + 0.5 * torch.randn(n * 16, WIDTH, generator=generator)
    masks = labels.reshape(n, *GRID).repeat_interleave(2, 1).repeat_interleave(2, 2)
    masks[:, 0, 0] = 255
    patches = patches.reshape(n, 16, WIDTH)
    blank = torch.zeros(n, 16, 0)
    return [
        SegmentationBatch(PatchInputs(patches[part], blank[part], blank[part], blank[part], GRID), masks[part])
        for part in (slice(i, i + 4) for i in range(0, n, 4))
    ]


def fresh() -> LinearDecoder:
    torch.manual_seed(3)
    return LinearDecoder(WIDTH, N_CLASSES)


TRAIN, VALIDATION = blobs(), blobs(seed=1)


def mean_iou(head) -> float:
    return score_decoder(head, VALIDATION, N_CLASSES).report().mean_iou


TASK = TrainingTask(lambda _: TRAIN, torch.ones(N_CLASSES), mean_iou)


def test_counts_and_weights() -> None:
    counts = pixel_counts([torch.tensor([[0, 0, 255], [0, 0, 1]])], 3)
    assert counts.tolist() == [4, 1, 0]
    torch.testing.assert_close(class_weights(counts, 0.5), torch.tensor([0.5, 1.0, 0.0]) / 0.75)
    torch.testing.assert_close(class_weights(counts, 1.0), torch.tensor([0.25, 1.0, 0.0]) / 0.625)
    torch.testing.assert_close(class_weights(counts, 0.0), torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(InputError, match="label 7 of 3"):
        pixel_counts([torch.tensor([[7]])], 3)


def test_loss_counts_valid_pixels_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    masks = torch.tensor([[[0, 1], [255, 2]]])
    log_p = logits.log_softmax(1)
    expected = -(log_p[0, 0, 0, 0] + log_p[0, 1, 0, 1] + log_p[0, 2, 1, 1]) / 3
    torch.testing.assert_close(pixel_loss(logits, masks), expected)
    nothing = pixel_loss(logits, torch.full((1, 2, 2), 255), dice=1.0)
    nothing.backward()
    assert nothing.item() == 0 and (logits.grad == 0).all()


def test_dice_loss_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 3)
    masks = torch.tensor([[[1, 1, 255]]])
    # p = 1/2 at two valid pixels: overlap 1, sizes 1 + 2; class 0 is not in the batch.
    expected = np.log(2) + 0.5 * (1 - 2 * 1 / 3)
    assert pixel_loss(logits, masks, dice=0.5).item() == pytest.approx(expected)


def test_training_learns_and_keeps_the_best_epoch() -> None:
    torch.manual_seed(0)
    head = LinearDecoder(WIDTH, N_CLASSES)
    before = mean_iou(head)
    settings = DecoderSettings(epochs=30, learning_rate=0.03, validate_every=5)
    history = train_decoder(head, TASK, settings)
    assert len(history.loss) == 30 and history.loss[-1] < history.loss[0]
    assert list(history.score) == [0, 5, 10, 15, 20, 25, 30] and history.score[0] == before
    assert history.best_score == max(history.score.values()) == pytest.approx(mean_iou(head))
    assert history.best_score > before + 0.2


def test_training_that_does_harm_is_undone() -> None:
    decoder = fresh()
    worse = TrainingTask(
        lambda _: TRAIN, torch.ones(N_CLASSES), lambda head: -float(head.classifier.weight.detach().norm())
    )
    start = decoder.classifier.weight.detach().clone()
    history = train_decoder(decoder, worse, DecoderSettings(epochs=4, learning_rate=0.1, validate_every=2))
    assert history.best_epoch == 0 and torch.equal(decoder.classifier.weight, start)


def test_tuning_returns_the_best_candidate_and_is_deterministic() -> None:
    candidates = [
        DecoderSettings(epochs=1, learning_rate=1e-5, balance=0.0),
        DecoderSettings(epochs=30, learning_rate=0.03, balance=0.5),
        DecoderSettings(epochs=1, learning_rate=1e-5, balance=1.0),
    ]
    counts = pixel_counts((batch.masks for batch in TRAIN), N_CLASSES)
    tune = partial(tune_decoder, fresh, TrainingTask(lambda _: TRAIN, counts, mean_iou), candidates)
    seen: list[Trial] = []
    decoder, winner, trials = tune(on_trial=seen.append)
    assert winner.settings == candidates[1] and trials == seen and len(trials) == 3
    assert mean_iou(decoder) == max(trial.history.best_score for trial in trials)
    resumed, _, _ = tune(done=seen[:2])
    for one, two in zip(decoder.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(InputError, match="other settings"):
        tune(done=seen[1:])


def test_training_leaves_the_global_generator_alone_and_depends_on_the_seed() -> None:
    def noisy(seed: int) -> torch.Tensor:
        decoder = fresh()
        decoder.classifier = nn.Sequential(nn.Dropout(0.5), decoder.classifier)
        state = torch.get_rng_state()
        train_decoder(decoder, TASK, DecoderSettings(epochs=2), seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        return decoder.classifier[1].weight

    assert torch.equal(noisy(0), noisy(0)) and not torch.equal(noisy(0), noisy(1))


def test_balance_helps_the_rare_class() -> None:
    recalls = []
    for balance in (0.0, 1.0):
        torch.manual_seed(0)
        head = LinearDecoder(WIDTH, N_CLASSES)
        counts = pixel_counts((batch.masks for batch in TRAIN), N_CLASSES)
        settings = DecoderSettings(epochs=10, learning_rate=0.02, balance=balance)
        train_decoder(head, TrainingTask(lambda _: TRAIN, counts), settings)
        recalls.append(score_decoder(head, VALIDATION, N_CLASSES).report().class_accuracy[2])
    assert recalls[1] > recalls[0]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: DecoderSettings(epochs=0), "epochs"),
        (
            lambda: train_decoder(fresh(), TrainingTask(lambda _: [], torch.ones(3)), DecoderSettings(epochs=1)),
            "broke off",
        ),
        (
            lambda: tune_decoder(fresh, TASK, []),
            "0 candidates",
        ),
    ],
)
def test_refuses_bad_input_and_names_it(call, named: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert named in str(caught.value)
