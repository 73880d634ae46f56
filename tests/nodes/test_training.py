import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.proxies import ImageProxy
from cmgl_cli.nodes.reader import BlockShuffledReader, ReaderPlan
from cmgl_cli.nodes.training import (
    ProxyData,
    TrainingSettings,
    patch_statistics,
    train_proxy,
    validation_split,
)

N, NP, D, C, P = 240, 9, 12, 3, 6


def planted(seed=0, padded=False):
    """Samples whose class is the sign pattern of one patch among noise: mean-pooling sees it only faintly."""
    generator = np.random.default_rng(seed)
    labels = np.arange(N) % C
    x = generator.normal(size=(N, NP, D))
    where = generator.integers(0, NP, size=N)
    x[np.arange(N), where, 0] += 6
    x[np.arange(N), where, 1 + labels] += 5
    return x.astype(np.float16), labels


def data(x, labels, plan=ReaderPlan(8, 64), aligned=None, batch_size=32):  # noqa: B008
    train, validation = validation_split(labels, 0.2, seed=0)
    readers = (
        BlockShuffledReader(x, train, batch_size=batch_size, seed=1, aligned=aligned, plan=plan),
        BlockShuffledReader(x, validation, batch_size=50, shuffle=False, aligned=aligned, plan=plan),
    )
    return ProxyData(*readers, labels)


WHOLE = TrainingSettings(epochs=15, learning_rate=1e-2, patch_keep=1)  # one patch decides: none may be left out


def fit(d, settings=TrainingSettings(epochs=8, learning_rate=1e-2), multi_label=False, **kwargs):  # noqa: B008
    return train_proxy(Distiller(D, P, 8, seed=0), ImageProxy(C, P, multi_label=multi_label), d, settings, **kwargs)


def weights(result):
    return result.distiller.to_arrays() | {k: v.numpy() for k, v in result.proxy.state_dict().items()}


def assert_same_weights(one, other):
    assert all(np.array_equal(array, weights(other)[name]) for name, array in weights(one).items())


def test_probes_find_the_informative_patch_and_z_is_linearly_separable():
    x, labels = planted()
    result = fit(data(x, labels), WHOLE)
    fresh, fresh_labels = planted(1)
    with torch.no_grad():
        z = result.distiller(torch.from_numpy(x)).z.numpy()
        z_fresh = result.distiller(torch.from_numpy(fresh)).z.numpy()
    assert result.history.best_score > 0.95
    assert LogisticRegression(max_iter=500).fit(z, labels).score(z_fresh, fresh_labels) > 0.95


def test_arguments_are_left_as_they_are():
    distiller, proxy, (x, labels) = Distiller(D, P, 8, seed=0), ImageProxy(C, P), planted()
    before = distiller.to_arrays()
    train_proxy(distiller, proxy, data(x, labels), TrainingSettings(epochs=1))
    assert all(np.array_equal(array, before[name]) for name, array in distiller.to_arrays().items())
    assert float(proxy.head.weight.detach().abs().sum()) == 0


def test_two_runs_are_bitwise_equal_and_the_memory_budget_does_not_matter():
    x, labels = planted()
    one = fit(data(x, labels))
    assert_same_weights(one, fit(data(x, labels)))
    assert_same_weights(one, fit(data(x, labels, ReaderPlan(8, 64, memory_bytes=0))))


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_resumed_run_ends_in_the_weights_of_the_undisturbed_one(stop_after):
    class Killed(Exception):
        pass

    x, labels = planted()
    checkpoints = []

    def keep(state):
        checkpoints.append(state)
        if len(checkpoints) == stop_after:
            raise Killed

    with pytest.raises(Killed):
        fit(data(x, labels), on_epoch=keep)
    whole, resumed = fit(data(x, labels)), fit(data(x, labels), resume=checkpoints[-1])
    assert_same_weights(whole, resumed)
    for curve in ("train_loss", "validation_loss", "validation_score", "learning_rate"):
        assert np.array_equal(getattr(whole.history, curve), getattr(resumed.history, curve))
    assert all(isinstance(array, np.ndarray) for array in checkpoints[0].values())


def test_a_run_resumed_after_its_best_epoch_still_returns_the_best_weights():
    x, labels = planted()
    labels = np.random.default_rng(0).permutation(labels)
    settings, checkpoints = TrainingSettings(epochs=60, learning_rate=1e-2, patience=4), []
    whole = fit(data(x, labels), settings, on_epoch=checkpoints.append)
    resumed = fit(data(x, labels), settings, resume=checkpoints[whole.history.best_epoch + 2])
    assert resumed.history.best_epoch == whole.history.best_epoch
    assert_same_weights(whole, resumed)


def test_a_finished_checkpoint_resumes_to_the_same_result():
    x, labels = planted()
    checkpoints = []
    whole = fit(data(x, labels), on_epoch=checkpoints.append)
    assert_same_weights(whole, fit(data(x, labels), resume=checkpoints[-1]))


def test_a_checkpoint_of_another_run_is_refused():
    x, labels = planted()
    checkpoints = []
    fit(data(x, labels), on_epoch=checkpoints.append)
    with pytest.raises(InputError, match="does not belong"):
        train_proxy(Distiller(D, P + 1, 8), ImageProxy(C, P + 1), data(x, labels), resume=checkpoints[0])
    del checkpoints[0]["best_epoch"]
    with pytest.raises(InputError, match="best_epoch"):
        fit(data(x, labels), resume=checkpoints[0])


def test_early_stopping_returns_the_best_weights():
    x, labels = planted()
    labels = np.random.default_rng(0).permutation(labels)  # nothing to learn: validation loss soon rises
    d = data(x, labels)
    result = fit(d, TrainingSettings(epochs=60, learning_rate=1e-2, patience=3))
    history = result.history
    assert history.stopped_early and len(history.train_loss) == history.best_epoch + 1 + 3 < 60
    assert history.best_epoch == np.argmin(history.validation_loss)
    batch = d.tensors(next(d.validation.epoch()), torch.device("cpu"))
    with torch.no_grad():
        loss = float(result.proxy.evaluate(result.distiller, batch)[0])
    assert loss == pytest.approx(history.validation_loss[history.best_epoch], rel=1e-6)


def test_recorded_score_is_the_accuracy_of_the_head():
    x, labels = planted()
    d = data(x, labels)
    result = fit(d)
    rows = d.validation.rows
    with torch.no_grad():
        predicted = result.proxy(result.distiller(torch.from_numpy(x[rows])).z).argmax(1).numpy()
    assert result.history.best_score == pytest.approx(np.mean(predicted == labels[rows]))


def test_learning_rate_warms_up_and_falls_to_zero():
    x, labels = planted()
    rate = fit(data(x, labels), TrainingSettings(epochs=10, learning_rate=0.1, warmup=0.2, patience=10)).history
    assert np.argmax(rate.learning_rate) in (1, 2) and rate.learning_rate.max() == pytest.approx(0.1, rel=0.05)
    assert rate.learning_rate[-1] < 1e-3


def test_multi_label_proxy_learns_presence():
    generator = np.random.default_rng(0)
    presence = generator.integers(0, 2, size=(N, C))
    x = generator.normal(size=(N, NP, D))
    for c in range(C):
        x[np.arange(N), generator.integers(0, NP, size=N), c] += 6 * presence[:, c]
    result = fit(data(x.astype(np.float16), presence), WHOLE, True)
    assert result.proxy.score_name == "mean average precision"
    assert result.history.best_score > 0.9


def test_padding_changes_nothing():
    x, labels = planted()
    padded = np.concatenate([x, np.full((N, 2, D), np.nan, np.float16)], axis=1)
    valid = np.repeat(np.arange(NP + 2)[None] < NP, N, axis=0)
    one, other = fit(data(x, labels), WHOLE), fit(data(padded, labels, aligned={"valid": valid}), WHOLE)
    np.testing.assert_allclose(one.history.validation_loss, other.history.validation_loss, rtol=1e-4)


def test_a_step_sees_its_own_random_share_of_the_patches():
    seen = []

    class Spy(ImageProxy):
        def evaluate(self, distiller, batch):
            if self.training and torch.is_grad_enabled():
                seen.append(batch.patches[0, :, 0].tolist())
            return super().evaluate(distiller, batch)

    x, labels = planted()
    x[:, :, 0] = np.arange(NP)
    settings = TrainingSettings(epochs=6, patch_keep=0.4, patience=6)
    train_proxy(Distiller(D, P, 8), Spy(C, P), data(x, labels), settings)
    assert {len(kept) for kept in seen} == {4} and len({tuple(kept) for kept in seen}) > 20
    assert set(np.concatenate(seen)) == set(range(NP))


def test_no_sample_is_left_without_a_valid_patch():
    x, labels = planted()
    valid = np.zeros((N, NP), bool)
    valid[np.arange(N), np.arange(N) % NP] = True
    history = fit(data(x, labels, aligned={"valid": valid})).history
    assert np.isfinite(history.train_loss).all()


def test_patch_statistics_are_those_of_the_valid_patches():
    x, _ = planted()
    x[:, :, 3] = 2.5
    valid = np.random.default_rng(0).random((N, NP)) < 0.7
    reader = BlockShuffledReader(x, aligned={"valid": valid}, batch_size=17)
    mean, scale = patch_statistics(reader, N)
    tokens = x[valid].astype(np.float64)
    np.testing.assert_allclose(mean, tokens.mean(axis=0), rtol=1e-10)
    expected = tokens.std(axis=0)
    expected[3] = 1
    np.testing.assert_allclose(scale, expected, rtol=1e-10)


def test_nan_features_are_refused():
    x, labels = planted()
    x[::7, 2, 1] = np.nan
    with pytest.raises(InputError, match="1 of 12 channels"):
        fit(data(x, labels))


def test_validation_split_is_stratified_disjoint_and_seeded():
    labels = np.repeat([0, 1, 2, 3], [100, 50, 2, 1])
    train, validation = validation_split(labels, 0.1, seed=4)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert np.array_equal(np.bincount(labels[validation], minlength=4), [10, 5, 1, 0])
    assert np.array_equal(validation, validation_split(labels, 0.1, seed=4)[1])
    assert not np.array_equal(validation, validation_split(labels, 0.1, seed=5)[1])
    assert len(validation_split(labels, 0.5, seed=4, max_samples=20)[1]) <= 22
    with pytest.raises(UsageError, match="1.5"):
        validation_split(labels, 1.5, seed=0)
    with pytest.raises(InputError, match="two samples"):
        validation_split(np.arange(5), 0.5, seed=0)


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="epochs = 0"):
        TrainingSettings(epochs=0)
    with pytest.raises(UsageError, match="patch_keep = 0"):
        TrainingSettings(patch_keep=0)
    with pytest.raises(InputError, match="two classes"):
        ImageProxy(1, 4)
