"""Ridge and k-NN on every training label: no draw of labels, no chance at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Ridge

from bench.data.images import ImageSet
from bench.evaluate.knn import KnnConfig, knn
from bench.evaluate.knn_all import KnnAllConfig, knn_all
from bench.evaluate.ridge_all import RidgeAllConfig, ridge_all
from tests.evaluate import labelled
from tests.evaluate.labelled import K, one_hot, plain


@pytest.fixture(scope="module")
def noisy() -> ImageSet:
    """Classes that overlap: one code in three is that of another class."""
    parts = []
    for count, seed in ((200, 0), (600, 1)):
        generator = torch.Generator().manual_seed(seed)
        truth = labelled.labels(count, seed)
        codes = one_hot(truth + (torch.rand(count, generator=generator) < 0.35).long())
        codes = codes * torch.rand(count, 1, generator=generator)
        parts.append(labelled.split(truth, codes))
    return ImageSet(parts[0], parts[1], K)


def test_both_see_every_label_and_no_seed(tmp_path: Path, noisy: ImageSet) -> None:
    """The vote on the labelled images changes with the draw and the number; these do not."""
    found: dict[str, set[float]] = {"ridge": set(), "all": set(), "few": set()}
    for seed in range(3):
        settings = labelled.config(data={"labels": K * 2})
        settings = dataclasses.replace(settings, seed=seed)
        encoder = labelled.encoder(tmp_path / str(seed), noisy, settings)
        found["ridge"].add(ridge_all(encoder, RidgeAllConfig()).top1)
        found["all"].add(knn_all(encoder, KnnAllConfig(k=5)).top1)
        found["few"].add(knn(encoder, KnnConfig(k=5)).top1)
    assert {name: len(scores) for name, scores in found.items() if name != "few"} == {
        "ridge": 1,
        "all": 1,
    }
    assert len(found["few"]) > 1


def test_with_all_labels_the_two_votes_are_one(tmp_path: Path, noisy: ImageSet) -> None:
    encoder = labelled.encoder(tmp_path, noisy)
    assert knn_all(encoder, KnnAllConfig(k=7)) == knn(encoder, KnnConfig(k=7))


@pytest.mark.parametrize("penalty", [1e-4, 1.0])
def test_the_ridge_is_least_squares_on_standardised_features(
    tmp_path: Path, noisy: ImageSet, penalty: float
) -> None:
    encoder = labelled.encoder(tmp_path, noisy)
    (x, y), (x_test, y_test) = (
        encoder.features("mean", part) for part in (noisy.train, noisy.test)
    )
    mean, sd = x.mean(0), x.std(0, correction=0)
    sd = torch.where(sd > 0, sd, 1.0)
    model = Ridge(alpha=penalty * len(x)).fit((x - mean) / sd, 2.0 * one_hot(y) - 1)
    guesses = torch.from_numpy(model.predict((x_test - mean) / sd)).argmax(1)
    wanted = 100 * float((guesses == y_test).float().mean())
    assert ridge_all(encoder, RidgeAllConfig(penalty=penalty)).top1 == pytest.approx(wanted)


def test_separable_classes_are_all_told_apart(tmp_path: Path) -> None:
    encoder = labelled.encoder(tmp_path, plain())
    assert ridge_all(encoder, RidgeAllConfig()).top1 == 100.0
    assert knn_all(encoder, KnnAllConfig()).top1 == 100.0
