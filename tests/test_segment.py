"""From masks to label maps through the command line, and what goes wrong on the way."""

import dataclasses
import json
import os
import shutil
from contextlib import chdir
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from cmgl_cli.artifacts import SampleTable, open_artifact
from cmgl_cli.config import build_run
from cmgl_cli.datasets import open_dataset
from cmgl_cli.errors import InputError, UsageError
from cmgl_cli.graphs import Moments, Nonparanormal
from cmgl_cli.nodes.proxies import balanced_weights
from cmgl_cli.reports.material import run_of_config
from cmgl_cli.reports.report import write_report
from cmgl_cli.segmentation.data import SegmentationData, thinned
from cmgl_cli.segmentation.label_maps import LabelMaps, require_one_grid, shrunk
from cmgl_cli.segmentation.pictures import Pictures
from cmgl_cli.segmentation.regions import RegionEvidence, RegionSource
from cmgl_cli.segmentation.views import PatchView
from cmgl_cli.steps import steps_of
from cmgl_cli.sufficient import fold_correlations
from tests.cli_helpers import SMALL, cmgl

ENCODER = ["--encoder", "builtin:tiny"]
QUICK = ["--epochs", "4", "--decoder", "hybrid"]
REGION = ["--observations", "region", *SMALL["fit-graphs"]]


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """A folder in which the generated images were segmented once."""
    folder = tmp_path_factory.mktemp("segmented")
    with chdir(folder):
        cmgl("render-text", "--dataset", "smoke")
        cmgl("extract", "--dataset", "smoke", *ENCODER)
        cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--proxy", "pixel")
        cmgl("prior", "--dataset", "smoke")
        cmgl("fit-graphs", "--dataset", "smoke", *REGION)
        cmgl("segment", "--dataset", "smoke", *QUICK)
    return folder


@pytest.fixture
def work(tmp_path, learned, monkeypatch):
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "artifacts" / "smoke"


def label_maps(found):
    """Return the label maps of a segmentation artifact by id."""
    values, offsets = found["map/values"], found["map/offsets"]
    return {name: values[offsets[i] : offsets[i + 1]].reshape(found["size"][i]) for i, name in enumerate(found["id"])}


def test_label_maps_have_the_size_of_their_images_and_the_scores_are_right(work):
    dataset = open_dataset("smoke")
    with open_artifact(work / "segmentation.h5", verify=True) as found:
        maps = label_maps(found)
        assert set(maps) == {sample.id for sample in dataset.samples("test")}
        truth, guess = [], []
        for sample in dataset.samples("test"):
            assert maps[sample.id].shape == dataset.mask(sample).shape
            truth.append(dataset.mask(sample).ravel())
            guess.append(maps[sample.id].ravel())
        truth, guess = np.concatenate(truth), np.concatenate(guess)
        expected = jaccard_score(truth, guess, average=None, labels=[0, 1, 2])
        np.testing.assert_allclose(found["per_class/iou"], expected)
        assert found["table/mean_iou"][0] == pytest.approx(expected.mean())
        assert found["table/pixel_accuracy"][0] == pytest.approx((truth == guess).mean())
        methods = set(found["table/method"])
    assert {"hybrid", "linear", "hybrid, without edges", "hybrid, random graph", "hybrid, without graph"} <= methods
    assert {"segmentation-overlay.png", "segmentation-attention.png", "segmentation-graphs.png"} <= set(
        os.listdir(work)
    )


def test_graphs_of_regions_know_what_the_masks_show(work):
    """Nine in ten pixels of two shapes, from eight images; labelling everything as background reaches 0.27."""
    with open_artifact(work / "segmentation.h5") as found:
        reached = dict(zip(found["table/method"].tolist(), found["table/mean_iou"].tolist(), strict=True))
    assert reached["generative"] > 0.6


def test_training_images_are_scored_by_graphs_without_them(work):
    with open_artifact(work / "region_graphs.h5") as found, open_artifact(work / "nodes.h5") as nodes:
        folds, crossed = found["crossfit/fold"], found["crossfit/precision"]
        train = SampleTable.read(nodes, "image").parts == "train"
        assert ((folds >= 0) == train).all() and set(folds[train]) == set(range(len(crossed)))
        # they are the same classes' graphs, from fewer images
        assert crossed.shape[1:] == found["precision"].shape
        for other in crossed:
            assert not np.allclose(other, found["precision"], rtol=1e-3)
    with open_artifact(work / "decoder.h5") as found:
        before = found["table/mean_iou"]
    cmgl("fit-graphs", "--dataset", "smoke", *REGION, "--no-cross-fit")
    with open_artifact(work / "region_graphs.h5") as found:
        assert "crossfit/fold" not in found
    cmgl("segment", "--dataset", "smoke", *QUICK, "--mode", "train")
    with open_artifact(work / "decoder.h5") as found:
        assert (found["table/mean_iou"] != before).any()


def test_graphs_and_decoders_of_an_earlier_version_are_refused(work, monkeypatch):
    monkeypatch.setattr("cmgl_cli.segmentation.class_graphs.APPEARANCE_NODES", 14)
    error = cmgl("segment", "--dataset", "smoke", *QUICK, "--mode", "train", "--force", code=3).err
    assert "earlier cmgl" in error and "fit-graphs --observations region" in error
    monkeypatch.setattr("cmgl_cli.stages.segment_predict.FINE", 99)
    error = cmgl("segment", "--dataset", "smoke", "--mode", "predict", "--force", code=3).err
    assert "earlier cmgl" in error and "--mode train" in error


def test_masks_are_shrunk_by_the_label_at_the_centre_of_a_cell():
    mask = np.arange(36).reshape(6, 6)
    np.testing.assert_array_equal(shrunk(mask, 3, None, 255), mask[1::2, 1::2])
    np.testing.assert_array_equal(shrunk(mask, 6, 7, 255), np.where(mask == 7, 255, mask))
    # enlarging repeats
    np.testing.assert_array_equal(shrunk(mask[:2, :2], 4, None, 255), np.kron(mask[:2, :2], np.ones((2, 2), int)))


def test_masks_artifact_holds_the_masks_in_the_order_of_the_features(work):
    dataset = open_dataset("smoke")
    samples = {sample.id: sample for sample in dataset.samples()}
    with open_artifact(work / "masks.h5") as masks, open_artifact(work / "features.h5") as features:
        np.testing.assert_array_equal(masks["id"], features["id"])
        assert masks["mask_classes"].tolist() == ["background", "disc", "stripes"]
        for row, name in enumerate(masks["id"]):
            np.testing.assert_array_equal(masks["mask"][row], shrunk(dataset.mask(samples[name]), 112, None, 255))
        maps = LabelMaps.read(masks, features["id"], "features")
        counts = maps.pixels(np.arange(4))
        np.testing.assert_array_equal(counts, np.bincount(masks["mask"][:4].ravel(), minlength=3))
    weights = balanced_weights(counts, 1.0)
    np.testing.assert_allclose(weights * counts, (weights * counts)[0])


@pytest.mark.parametrize(("kind", "looks"), [("patch", True), ("patch", False), ("mean", False), ("image", False)])
def test_evidence_is_the_moments_of_what_the_masks_give_to_each_class(work, kind, looks):
    dataset = open_dataset("smoke")
    with (
        open_artifact(work / "nodes.h5") as nodes,
        open_artifact(work / "features.h5") as features,
        open_artifact(work / "masks.h5") as masks,
    ):
        ids = nodes["image/id"]
        maps = LabelMaps.read(masks, ids, "nodes")
        pictures = Pictures(dataset, ids.tolist(), 112, 2**20) if looks else None
        windows = (3, 0) if kind == "patch" else ()
        source = RegionSource(nodes, features, maps, (8, 8), kind, windows, pictures)
        rows, folds = np.arange(8), np.arange(8) % 2
        evidence = RegionEvidence(source, rows, rows[:2], folds, rows // 4, seed=0, on_image=lambda: None)
        found = evidence.arrays()
        assert found["means"].shape == (3, len(source.names))
        drawn = list(evidence.resamples(3, seed=1))
        transform = Nonparanormal.from_arrays({k[10:]: v for k, v in found.items() if k.startswith("transform/")})
        regions = list(source.regions(rows, transform))
        for region in regions:
            if kind != "patch":
                np.testing.assert_array_equal(region.classes, np.unique(masks["mask"][region.row]))
    values, weights, labels = (
        np.concatenate([getattr(region, name) for region in regions]) for name in ("values", "weights", "classes")
    )
    for label in np.flatnonzero(~found["borrowed"]):
        own = labels == label
        np.testing.assert_allclose(
            found["means"][label], np.average(values[own], axis=0, weights=weights[own]), atol=1e-6
        )
        expected = np.cov(values[own].T, aweights=weights[own], bias=True)
        deviation = np.sqrt(np.diagonal(expected))
        np.testing.assert_allclose(found["scale"][label], deviation, rtol=1e-6)
        np.testing.assert_allclose(found["covariance"][label], expected / np.outer(deviation, deviation), atol=1e-6)
        assert found["counts"][label] == pytest.approx(weights[own].sum(), abs=0.5)
    kept = np.flatnonzero(~found["borrowed"])
    assert len(drawn) == 3 and all(matrices.shape == evidence.correlations.shape for matrices in drawn)
    assert not np.allclose(drawn[0], drawn[1])
    for matrices, label in zip(drawn[0], kept, strict=True):
        # eight images, 10 / sqrt(8) of them and at most 0.8: six, or more where a class would be in fewer than two
        assert any(
            np.allclose(matrices, correlation_of(regions, label, rows), atol=1e-6)
            for count in (6, 7, 8)
            for rows in combinations(range(8), count)
        )
    prior = evidence.prior(np.stack([np.full((4, 4), 0.2), np.full((4, 4), 0.6)]))
    first = source.appearance
    assert prior.shape == evidence.correlations.shape
    assert (prior[:, :first] == 0.5).all()
    background = int(np.flatnonzero(evidence.classes == "background")[0])
    np.testing.assert_allclose(prior[background, first:, first:], 0.4)


def correlation_of(regions, label, rows):
    """Return the correlations of what some images show of a class."""
    chosen = [(region, region.classes == label) for region in regions if region.row in rows]
    values = np.concatenate([region.values[own] for region, own in chosen])
    weights = np.concatenate([region.weights[own] for region, own in chosen])
    with np.errstate(all="ignore"):
        covariance = np.cov(values.T, aweights=weights, bias=True) if len(values) > 1 else np.full((1, 1), np.nan)
        deviation = np.sqrt(np.diagonal(covariance))
        return covariance / np.outer(deviation, deviation)


def test_edges_of_regions_come_with_a_frequency(work):
    cmgl("fit-graphs", "--dataset", "smoke", *REGION, "--stability", 4, "--force")
    with open_artifact(work / "region_graphs.h5") as found:
        frequency = found["stability/frequency"]
        assert frequency.shape == found["precision"].shape
        np.testing.assert_allclose(frequency * 12, np.round(frequency * 12), atol=1e-9)
        edges = (found["precision"] != 0) & ~np.eye(frequency.shape[1], dtype=bool)
        assert frequency[edges].mean() > 0.5


def test_windows_give_graphs_with_edges_between_scales(work):
    with open_artifact(work / "region_graphs.h5") as found:
        # thirteen nodes that see pixels; four nodes of a patch, of its neighbours, and of the image
        assert found["precision"].shape == (3, 25, 25)
        assert found["nodes"][[0, 13, 17, 21]].tolist() == ["look 0", "node 0", "node 0 around 3", "node 0 of image"]
        assert found["windows"].tolist() == [3, 0]
        assert np.linalg.eigvalsh(found["precision"]).min() > 0
        assert (found["precision"][:, :16, 16:] != 0).any() and (found["precision"][:, 16:20, 20:] != 0).any()
    cmgl("fit-graphs", "--dataset", "smoke", *REGION, "--windows", "none", "--no-appearance")
    with open_artifact(work / "region_graphs.h5") as found:
        assert found["precision"].shape == (3, 4, 4)


def test_a_class_too_small_for_a_graph_takes_the_mean_one_and_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "own", rare=True)
    outcome = run_folder(folder, "segment", *QUICK, "--no-baselines", "--no-figures")
    assert "rare" in outcome
    with open_artifact(tmp_path / "artifacts" / "own" / "region_graphs.h5") as found:
        assert found["borrowed"].tolist() == [False, False, True]
        np.testing.assert_allclose(found["precision"][2], found["precision"][:2].mean(axis=0))


def test_prediction_alone_gives_the_same_maps_and_pngs_in_the_datasets_convention(work, tmp_path):
    with open_artifact(work / "segmentation.h5") as found:
        before = label_maps(found)
    (work / "segmentation.h5").unlink()
    cmgl("segment", "--dataset", "smoke", "--mode", "predict", "--png", tmp_path / "pngs", "--probabilities")
    with open_artifact(work / "segmentation.h5") as found:
        after, probability = label_maps(found), found["probability"]
    assert before.keys() == after.keys()
    for name, labels in after.items():
        np.testing.assert_array_equal(before[name], labels)
        image = Image.open(tmp_path / "pngs" / f"{name.split('/')[1]}.png")
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_allclose(probability.astype(np.float64).sum(axis=1), 1, atol=2e-3)


def test_a_killed_training_goes_on_and_ends_the_same(work, monkeypatch):
    with open_artifact(work / "decoder.h5") as found:
        digest = found.digest
    (work / "decoder.h5").unlink()
    from cmgl_cli.stages import segment_train

    real, seen = segment_train._learn, []

    def counted(bench, task, candidate, balances):
        seen.append(candidate.label)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(bench, task, candidate, balances)

    monkeypatch.setattr(segment_train, "_learn", counted)
    cmgl("segment", "--dataset", "smoke", *QUICK, "--mode", "train", code=130)
    cmgl("segment", "--dataset", "smoke", *QUICK, "--mode", "train")
    assert len(seen) == len(set(seen)) + 1, "only the decoder that was interrupted is trained again"
    with open_artifact(work / "decoder.h5") as found:
        assert found.digest == digest


def test_all_labels_every_image(work):
    cmgl("segment", "--dataset", "smoke", "--mode", "predict", "--split", "all", "--no-figures", "--no-baselines")
    with open_artifact(work / "segmentation.h5") as found:
        assert len(found["id"]) == 16 and set(found["split"]) == {"train", "val", "test"}


def test_a_mask_that_cannot_be_read_costs_its_score_and_not_the_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "own")
    (folder / "masks" / "test" / "0.png").write_bytes(b"no picture")
    said = run_folder(folder, "segment", *QUICK, "--no-baselines", "--no-figures")
    assert "1 masks could not be read" in said and "test/0.png" in said
    with open_artifact(tmp_path / "artifacts" / "own" / "segmentation.h5") as found:
        assert len(found["id"]) == 2
        assert found["confusion"].sum() == 64 * 48


def test_criteria_about_whole_images_give_way_to_held_out_likelihood(work):
    options = ["--rho", "0.05,0.2", "--gamma", "0.1", "--k", "0", "--select", "score", "--observations", "region"]
    outcome = cmgl("fit-graphs", "--dataset", "smoke", *options, "--folds", "2", "--no-appearance", "--windows", "none")
    assert "about whole images" in outcome.err
    with open_artifact(work / "region_graphs.h5") as found:
        assert len(found["selection/score"]) == 2 and np.isfinite(found["selection/score"]).all()


def test_photographs_of_ones_own_are_labelled(work, tmp_path):
    photographs = tmp_path / "photos"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("wide", (90, 40)), ("tiny", (5, 7))):
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(photographs / f"{name}.png")
    cmgl("segment", "--images", photographs, "--name", "smoke", "--png", tmp_path / "labels")
    with open_artifact(work / "photos.segmentation.h5") as found:
        sizes = {name: tuple(size) for name, size in zip(found["id"], found["size"].tolist(), strict=True)}
        assert sizes == {"all/wide.png": (40, 90), "all/tiny.png": (7, 5)}
        assert "confusion" not in found
    assert Image.open(tmp_path / "labels" / "wide.png").size == (90, 40)
    outcome = cmgl("segment", "--images", photographs, code=2)
    assert "--name" in outcome.err


def test_photographs_are_mirrored_as_the_training_images_were(work, tmp_path):
    photographs = tmp_path / "photos"
    photographs.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(photographs / "a.png")
    cmgl("extract", "--dataset", "smoke", *ENCODER, "--mirror", "--modality", "image")
    cmgl("segment", "--images", photographs, "--name", "smoke")
    with open_artifact(work / "photos.features.h5") as found:
        assert found.config["mirror"] is True


def test_tiles_give_finer_patches_from_end_to_end(work, tmp_path):
    names = ("text_features.h5", "masks.h5")  # pages of text are read whole, masks not at all
    before = [(work / name).read_bytes() for name in names]
    cmgl("extract", "--dataset", "smoke", *ENCODER, "--tiles", "2")
    assert [(work / name).read_bytes() for name in names] == before
    cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--proxy", "pixel")
    cmgl("prior", "--dataset", "smoke")
    cmgl("fit-graphs", "--dataset", "smoke", *REGION)
    cmgl("segment", "--dataset", "smoke", "--decoder", "unet", "--epochs", "2", "--no-baselines")
    with open_artifact(work / "features.h5") as found, open_artifact(work / "decoder.h5") as decoder:
        assert found["grid"].tolist() == [[16, 16]] * len(found["id"]) and decoder["grid"].tolist() == [16, 16]
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    dataset = open_dataset("smoke")
    dataset.image(dataset.samples("test")[0]).save(photographs / "one.png")
    cmgl("segment", "--images", photographs, "--name", "smoke")
    with open_artifact(work / "photographs.features.h5") as found:
        assert found.config["tiles"] == 2 and found["grid"].tolist() == [[16, 16]]


def test_one_file_takes_a_folder_of_images_and_masks_to_overlays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "own")
    run_folder(folder, "segment", *QUICK, "--no-baselines")
    assert (tmp_path / "artifacts" / "own" / "segmentation-overlay.png").stat().st_size > 1000
    with open_artifact(tmp_path / "artifacts" / "own" / "nodes.h5") as nodes:
        # images show both classes: the pixel proxy was chosen, and labels come from the masks
        assert "weights/proxy/presence.weight" in nodes
        assert SampleTable.read(nodes, "image").multi_label


def test_binary_masks_of_another_folder_are_reached_by_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "own")
    shutil.move(folder / "masks", folder / "instances")
    (folder / "classes.json").unlink()
    options = ["--dataset-options", "{masks: instances, classes: [thing], binary: true}"]
    run_folder(folder, "extract", *ENCODER, more=options)
    with open_artifact(tmp_path / "artifacts" / "own" / "masks.h5") as found:
        assert found["mask_classes"].tolist() == ["background", "thing"]


def test_the_report_shows_scores_and_pictures(work):
    run = build_run(None, {"dataset": "smoke"}, environment={})
    html = write_report([run_of_config(run)], run.folder / "report.html").page
    text = html.with_suffix(".md").read_text()
    assert "Which pixel is what?" in text and "hybrid, without edges" in text
    assert (html.parent / "report-figures" / "segmentation.png").exists()


def test_until_runs_what_is_needed_and_no_more():
    run = build_run(None, {"dataset": "smoke"}, environment={})
    assert [step.label for step in steps_of(run)][-1] == "classify"
    assert not [step for step in steps_of(run) if step.output in {"region_graphs.h5", "decoder.h5"}]
    labels = [step.label for step in steps_of(build_run(None, {"dataset": "smoke", "until": "segment"}))]
    assert labels[-2:] == ["segment (train)", "segment (predict)"]
    assert "classify" not in labels and "fit-graphs (image)" not in labels
    without = [step.label for step in steps_of(build_run(None, {"dataset": "cifar10"}, environment={}))]
    assert "extract (mask)" not in without


def write_folder(folder, rare=False, spoil=None):
    """Write six images with masks of two or three classes; `spoil` changes one mask of the training part."""
    rng = np.random.default_rng(0)
    names = ["ground", "square", *(["rare"] if rare else [])]
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((64, 48), dtype=np.uint8)
            row, column = rng.integers(4, 30, 2)
            mask[row : row + 24, column : column + 14] = 1
            picture = np.where(mask[..., None] == 1, [220, 40, 40], [40, 60, 200]) + rng.normal(0, 20, (64, 48, 3))
            if rare and split == "train" and number == 0:
                mask[:6, :6] = 2
            if spoil and split == "train" and number == 0:
                mask = spoil(mask)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "images" / split / f"{number}.png")
            if mask is not None:
                Image.fromarray(mask).save(folder / "masks" / split / f"{number}.png")
    (folder / "classes.json").write_text(json.dumps({"classes": names, "ignore_index": 9}))
    return folder


def run_folder(folder, until, *options, more=(), code=0):
    """Run the stages on a folder up to `until`, whose options are given; return all that was said."""
    where = ["--dataset", "folder", "--root", folder, "--name", "own", *more]
    said = ""
    for stage, own in (
        ("render-text", []),
        ("extract", ENCODER),
        ("distill", SMALL["distill"]),
        ("prior", []),
        ("fit-graphs", REGION),
        ("segment", []),
    ):
        last = stage == until
        outcome = cmgl(stage, *where, *(options if last else own), code=code if last else 0)
        said += outcome.out + outcome.err
        if last:
            return said
    return said


BAD_MASKS = {
    "another size": (lambda mask: mask[:10], "size"),
    "labels outside the classes": (lambda mask: mask + 3, "stand for no class"),
    "RGB without a palette": (lambda mask: np.stack([mask * 80, mask * 30, mask], axis=2), "RGB"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks_are_listed_or_stop_a_strict_run(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    spoil, reason = BAD_MASKS[case]
    folder = write_folder(tmp_path / "own", spoil=spoil)
    said = run_folder(folder, "extract", *ENCODER)
    assert "1 of 9 masks could not be read" in said
    with open_artifact(tmp_path / "artifacts" / "own" / "masks.h5") as found:
        assert (~found["known"]).sum() == 1
        assert reason.lower() in found["problem"][~found["known"]][0].lower()
    said = run_folder(folder, "extract", *ENCODER, "--strict", "--force", "--modality", "mask", code=3)
    assert "masks/train/0.png" in said and "Traceback" not in said


def test_ignored_pixels_count_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "own")
    for number in range(2):
        path = folder / "masks" / "test" / f"{number}.png"
        mask = np.array(Image.open(path))
        mask[:10] = 9
        Image.fromarray(mask).save(path)
    run_folder(folder, "segment", *QUICK, "--no-baselines")
    with open_artifact(tmp_path / "artifacts" / "own" / "segmentation.h5") as found:
        assert found["confusion"].sum() == 2 * 54 * 48


def test_masks_of_other_samples_are_refused(work):
    cmgl("extract", "--dataset", "smoke", "--modality", "mask", "--limit", "12")
    outcome = cmgl("distill", "--dataset", "smoke", *SMALL["distill"], code=4)
    assert "12 masks" in outcome.err and "16 samples" in outcome.err


def test_folds_without_variance_are_left_out():
    rng = np.random.default_rng(0)
    folds = [Moments(1, 2) for _ in range(3)]
    for index, fold in enumerate(folds):
        values = rng.normal(size=(50, 2))
        values[:, 1] = values[:, 1] if index == 0 else 1.0  # only the first fold sees the second node vary
        fold.update(values, 0)
    # without the first fold there is nothing to train the second node on
    assert len(fold_correlations(folds)) == 2
    assert len(fold_correlations(folds[:1] * 3)) == 3
    with pytest.raises(UsageError, match="held-out likelihood needs"):
        fold_correlations(folds[1:])


def test_missing_masks_are_counted_and_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "own", spoil=lambda mask: None)
    assert "images without    1" in run_folder(folder, "extract", *ENCODER)


def test_graphs_of_other_nodes_are_refused(work):
    cmgl("distill", "--dataset", "smoke", *SMALL["distill"], "--proxy", "pixel", "--seed", "1")
    outcome = cmgl("segment", "--dataset", "smoke", *QUICK, code=4)
    assert "another nodes artifact" in outcome.err


def test_what_does_not_go_together_is_refused(work, tmp_path):
    # graphs of image classes have no background
    cmgl("fit-graphs", "--dataset", "smoke", "--observations", "image", *SMALL["fit-graphs"])
    outcome = cmgl("segment", "--dataset", "smoke", *QUICK, "--region-graphs", work / "graphs.h5", code=3)
    assert "different classes" in outcome.err and "--observations region" in outcome.err
    outcome = cmgl("fit-graphs", "--dataset", "smoke", *REGION, "--windows", "4", code=2)
    assert "windows = '4'" in outcome.err
    outcome = cmgl("segment", "--dataset", "smoke", "--mode", "predict", "--split", "nowhere", code=3)
    assert "nowhere" in outcome.err
    outcome = cmgl("segment", "--dataset", "smoke", "--mode", "predict", "--explain", "test/999", code=2)
    assert "test/999" in outcome.err


def test_a_dataset_without_masks_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "classes" / "train"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(folder / label / "1.png")
    outcome = cmgl(
        "extract", "--dataset", "folder", "--root", folder.parent, "--name", "own", "--modality", "mask", code=3
    )
    assert "no masks" in outcome.err


@pytest.mark.parametrize(("rule", "grids", "word"), [({"do_center_crop": True}, 1, "crop"), ({}, 2, "2 different")])
def test_features_that_do_not_cover_the_masks_are_refused(rule, grids, word):
    class Features(dict):
        path = "features.h5"
        identity = SimpleNamespace(digests={"settings": json.dumps({"preprocessing": rule})})
        config = {"encoder": "some/encoder"}

    features = Features(grid=np.array([[4, 4], [4, 3 + (grids == 1)]]), valid=np.array([True, True]))
    with pytest.raises(InputError, match=word):
        require_one_grid(features)


def test_predictions_do_not_depend_on_the_number_of_threads(work):
    with open_artifact(work / "segmentation.h5") as found:
        before = found["map/values"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cmgl("segment", "--dataset", "smoke", "--mode", "predict", "--force")
    finally:
        torch.set_num_threads(threads)
    with open_artifact(work / "segmentation.h5") as found:
        np.testing.assert_array_equal(found["map/values"], before)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_thinned_masks_are_not_shifted(stride):
    """Over four turns the labels that stand for a cell have its centre as their mean place."""
    places = np.arange(4 * stride)
    rows, columns = (np.mean([places[thinned(stride, turn)[axis]] for turn in range(4)], axis=0) for axis in (0, 1))
    centres = np.arange(4) * stride + (stride - 1) / 2
    np.testing.assert_array_equal(rows, centres)
    np.testing.assert_array_equal(columns, centres)
    chosen = {(thinned(stride, turn)[0].start, thinned(stride, turn)[1].start) for turn in range(4)}
    assert len(chosen) == (4 if stride % 2 == 0 else 1)


def test_training_sees_thinned_masks_in_turns_and_judges_whole_ones(work):
    with (
        open_artifact(work / "features.h5") as features,
        open_artifact(work / "nodes.h5") as nodes,
        open_artifact(work / "masks.h5") as masks,
        open_artifact(work / "region_graphs.h5") as graphs,
    ):
        maps = LabelMaps.read(masks, features["id"], "features")
        grid = require_one_grid(features)
        view = PatchView.of(nodes.group("weights"), graphs.group("transform"), grid, torch.device("cpu"))
        data = SegmentationData(view, features, maps, None, 2**30, 2, 0)
        size = maps.maps.shape[1]
        stride = size // (4 * max(grid))
        assert stride > 1
        rows = np.flatnonzero(maps.known)[:4]
        whole = torch.cat([batch.masks for batch in data.batches(rows, shuffle=False)(0)]).numpy()
        np.testing.assert_array_equal(whole, maps.maps[rows])
        thin = [batch.masks for batch in data.batches(rows)(0)]
        assert {mask.shape[1] for mask in thin} == {len(range(stride // 2, size, stride))}
        # patches half as wide have cells as large as before
        fine = dataclasses.replace(data, view=dataclasses.replace(view, grid=(28, 28)))
        assert next(iter(fine.batches(rows)(0))).masks.shape[1:] == (56, 56)
        # with an even number of labels a cell, every epoch another of the four in its middle
        even = dataclasses.replace(maps, maps=maps.maps[:, : 8 * max(grid), : 8 * max(grid)])
        data = SegmentationData(view, features, even, None, 2**30, 2, 0)
        seen = [next(iter(data.batches(rows[:1])(epoch))).masks[0].numpy() for epoch in range(4)]
        own = even.maps[rows[0]]
        for labels, (first, second) in zip(seen, [(1, 1), (0, 1), (1, 0), (0, 0)], strict=True):
            np.testing.assert_array_equal(labels, own[first::2, second::2])
