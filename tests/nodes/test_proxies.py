import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score

from cmgl_cli.errors import InputError
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.proxies import (
    ImageProxy,
    IntersectionMeter,
    PixelProxy,
    PrecisionMeter,
    ProxyBatch,
    balanced_weights,
)
from cmgl_cli.nodes.reader import BlockShuffledReader
from cmgl_cli.nodes.training import ProxyData, TrainingSettings, train_proxy

GRID, D, P, K, C = (3, 4), 6, 5, 4, 3
RNG = np.random.default_rng(0)


def pixel_batch(b=2, size=(6, 8), dtype=torch.float64):
    x = torch.from_numpy(RNG.normal(size=(b, 12, D))).to(dtype)
    return ProxyBatch(x, None, torch.from_numpy(RNG.integers(0, C, size=(b, *size))))


def pixel_proxy(dtype=torch.float64, **options):
    proxy = PixelProxy(C, P, K, GRID, **options).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in proxy.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return proxy


def test_pixel_logits_are_the_back_projection_of_node_scores():
    distiller, proxy, batch = Distiller(D, P, K).double(), pixel_proxy(), pixel_batch(size=GRID)
    _, logits = proxy.evaluate(distiller, batch)
    out = distiller(batch.patches)
    back_projected = torch.einsum("bpn,bpk->bnk", out.attention, out.nodes)  # A^T Z, then W_cls
    mass = out.attention.sum(dim=1)[..., None]
    expected = back_projected @ proxy.head.weight.T + mass * proxy.head.bias
    np.testing.assert_allclose(logits.flatten(2).transpose(1, 2).detach(), expected.detach(), rtol=1e-9)


def test_pixel_loss_by_hand():
    weights, ignore = np.array([0.5, 1.0, 3.0]), 9
    distiller, proxy = Distiller(D, P, K).double(), pixel_proxy(ignore_label=ignore, class_weights=weights)
    batch = pixel_batch()
    batch.targets[0, :2] = ignore
    loss, logits = proxy.evaluate(distiller, batch)
    logp = torch.log_softmax(logits, 1).detach().numpy()
    t = batch.targets.numpy()
    total = norm = 0.0
    for b, i, j in np.ndindex(t.shape):
        if t[b, i, j] != ignore:
            total -= weights[t[b, i, j]] * logp[b, t[b, i, j], i, j]
            norm += weights[t[b, i, j]]
    present = np.array([[(t[b] == c).any() for c in range(C)] for b in range(len(t))])
    scores = 1 / (1 + np.exp(-proxy.presence(distiller(batch.patches).z).detach().numpy()))
    presence = -np.mean(np.log(np.where(present, scores, 1 - scores)))
    assert float(loss.detach()) == pytest.approx(total / norm + presence, rel=1e-6)


def test_ignored_pixels_have_no_influence():
    distiller, proxy, batch = Distiller(D, P, K).double(), pixel_proxy(presence_weight=0), pixel_batch()
    batch.targets[1] = 255
    alone = ProxyBatch(batch.patches[:1], None, batch.targets[:1])
    both, one = proxy.evaluate(distiller, batch)[0], proxy.evaluate(distiller, alone)[0]
    assert float(both.detach()) == pytest.approx(float(one.detach()))
    batch.targets[:] = 255
    assert float(proxy.evaluate(distiller, batch)[0].detach()) == 0


def test_every_weight_learns_from_pixels_and_presence():
    distiller, proxy = Distiller(D, P, K).double(), pixel_proxy()
    proxy.evaluate(distiller, pixel_batch())[0].backward()
    assert all(float(p.grad.abs().max()) > 0 for p in [*distiller.parameters(), *proxy.parameters()])


def test_pixel_proxy_learns_where_things_are():
    n = 80
    labels = RNG.integers(0, C, size=(n, *GRID))
    x = RNG.normal(size=(n, 12, D))
    x[..., :C] += 4 * np.eye(C)[labels.reshape(n, 12)]
    masks = labels.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)
    readers = [
        BlockShuffledReader(x.astype(np.float16), rows, batch_size=16, aligned={"mask": masks})
        for rows in (np.arange(60), np.arange(60, 80))
    ]
    settings = TrainingSettings(epochs=30, learning_rate=1e-2, patience=30)
    result = train_proxy(Distiller(D, 8, K), PixelProxy(C, 8, K, GRID), ProxyData(*readers), settings)
    assert result.history.validation_score[0] < 0.5 < result.history.best_score


def test_bad_label_maps_are_refused():
    distiller, proxy, batch = Distiller(D, P, K).double(), pixel_proxy(), pixel_batch()
    batch.targets[0, 0, 0] = 7
    with pytest.raises(InputError, match="0 to 7, 3 classes"):
        proxy.evaluate(distiller, batch)
    with pytest.raises(InputError, match="3 x 4"):
        proxy.evaluate(distiller, ProxyBatch(batch.patches[:, :10], None, batch.targets.clamp_max(2)))


def test_balanced_weights():
    counts = np.array([100, 25, 0])
    np.testing.assert_allclose(balanced_weights(counts, 0.0), [1, 1, 0])
    half = balanced_weights(counts, 0.5)
    assert half[1] == pytest.approx(2 * half[0]) and half @ counts == pytest.approx(counts.sum())
    full = balanced_weights(counts, 1.0)
    assert full[0] * 100 == pytest.approx(full[1] * 25)


def test_intersection_meter_agrees_with_scikit_learn():
    meter, truth, predicted = IntersectionMeter(5, 255), [], []
    for _ in range(3):
        logits = torch.from_numpy(RNG.normal(size=(2, 5, 4, 4)))
        logits[:, 3] = -9  # never predicted
        targets = torch.from_numpy(RNG.choice([0, 1, 2, 255], size=(2, 4, 4)))  # 3 and 4 never true
        meter.update(logits, targets)
        keep = targets != 255
        truth.append(targets[keep].numpy())
        predicted.append(logits.argmax(1)[keep].numpy())
    expected = jaccard_score(np.concatenate(truth), np.concatenate(predicted), labels=[0, 1, 2, 4], average="macro")
    assert meter.value() == pytest.approx(expected)
    assert IntersectionMeter(2, 255).value() == 0


def test_precision_meter_skips_absent_classes():
    meter, logits = PrecisionMeter(), torch.from_numpy(RNG.normal(size=(20, 3)))
    targets = torch.from_numpy(RNG.integers(0, 2, size=(20, 3)))
    targets[:, 1] = 0
    meter.update(logits[:12], targets[:12])
    meter.update(logits[12:], targets[12:])
    expected = average_precision_score(targets[:, [0, 2]].numpy(), logits[:, [0, 2]].numpy())
    assert meter.value() == pytest.approx(expected)


def test_image_proxy_losses_are_the_cross_entropies_of_z():
    distiller = Distiller(D, P, K).double()
    x = torch.from_numpy(RNG.normal(size=(4, 7, D)))
    proxy = ImageProxy(C, P).double()
    proxy.head.weight.data = torch.from_numpy(RNG.normal(size=(C, P)))
    labels = torch.tensor([0, 2, 1, 2])
    loss, logits = proxy.evaluate(distiller, ProxyBatch(x, None, labels))
    torch.testing.assert_close(logits, proxy(distiller(x).z))
    torch.testing.assert_close(loss, -torch.log_softmax(logits, 1)[torch.arange(4), labels].mean())
