"""k-NN and the probe against scikit-learn's, on features that overlap."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bench.data.images import ArraySplit, ImageSet
from bench.evaluate.knn import knn_vote
from tests.evaluate.labelled import ROWS, K, config, labels, one_hot, scores, split


def neighbours(k: int, temperature: float) -> KNeighborsClassifier:
    """Cosine similarity, each neighbour with weight exp(similarity / T)."""

    def weights(distance: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.exp((1 - distance.astype(np.float64)) / temperature)
        return found

    return KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)


@pytest.mark.parametrize("k", [1, 4, 20])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_the_vote_is_scikit_learns(k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(k)
    train, queries = (torch.randn(n, 6, generator=generator) for n in (90, 300))
    truth = torch.randint(0, 5, (90,), generator=generator)
    ours = knn_vote(queries, (train, truth), (k, temperature), 5)
    theirs = neighbours(k, temperature).fit(train.numpy(), truth.numpy())
    assert ours.tolist() == theirs.predict(queries.numpy()).tolist()


def test_one_near_neighbour_outvotes_two_distant_ones() -> None:
    """cos 0.1 against twice cos 0.5: exp((0.995 - 0.878) / 0.07) is 5.3, more than 2."""
    angles = torch.tensor([0.1, 0.5, 0.5])
    train = torch.stack([angles.cos(), angles.sin()], 1)
    truth, query = torch.tensor([1, 0, 0]), torch.tensor([[2.0, 0.0]])
    assert math.exp((math.cos(0.1) - math.cos(0.5)) / 0.07) > 2
    assert knn_vote(query, (train, truth), (3, 0.07), 2).tolist() == [1]
    assert knn_vote(query, (train, truth), (3, 1.0), 2).tolist() == [0]


def test_more_neighbours_than_images_are_all_of_them() -> None:
    train, truth = torch.eye(3), torch.tensor([2, 0, 0])
    assert knn_vote(torch.eye(3)[:1], (train, truth), (20, 0.07), 3).tolist() == [2]


@pytest.fixture(scope="module")
def overlapping() -> ImageSet:
    """Classes that overlap; four of five test images are of the first class, and brighter."""
    generator = torch.Generator().manual_seed(3)

    def drawn(truth: Tensor, shift: float) -> ArraySplit:
        codes = 0.4 + shift + 0.14 * one_hot(truth)
        codes += 0.12 * torch.randn(len(truth), K, generator=generator)
        return split(truth, codes.clamp(0, 1))

    skewed = torch.where(torch.arange(1000) % 5 > 0, 0, torch.arange(1000) % K)
    return ImageSet(drawn(labels(400), 0.0), drawn(skewed, 0.1), K)


def features(images: ArraySplit) -> np.ndarray:
    """What the hand-made encoder sees of each image."""
    found: np.ndarray = images.images[:, 0, ROWS["mean"], :K].double().numpy() / 255
    return found


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (15, 0.07), (15, 0.002)])
def test_the_knn_score_is_scikit_learns(
    k: int, temperature: float, overlapping: ImageSet, tmp_path: Path
) -> None:
    settings = config(knn={"k": k, "temperature": temperature}, probe={"epochs": 1})
    ours = scores(tmp_path, overlapping, settings)["knn"]
    train, test = overlapping.train, overlapping.test
    theirs = neighbours(k, temperature).fit(features(train), train.labels.numpy())
    expected = 100 * theirs.score(features(test), test.labels.numpy())
    assert ours == pytest.approx(expected, abs=0.21)  # two ties by rounding in 1,000
    assert 40 < expected < 90


@pytest.mark.parametrize("lars", [False, True])
def test_the_probe_score_is_that_of_logistic_regression(
    lars: bool, overlapping: ImageSet, tmp_path: Path
) -> None:
    """On features standardised by the training images, not by the test images."""
    probe = {"epochs": 300, "batch_size": 100, "blr": 0.5, "warmup_epochs": 5}
    if lars:
        probe |= {"optimizer": "lars", "blr": 100.0}
    ours = scores(tmp_path, overlapping, config(probe=probe))["probe"]
    train, test = overlapping.train, overlapping.test
    scaler = StandardScaler().fit(features(train))
    theirs = LogisticRegression(C=1e6).fit(scaler.transform(features(train)), train.labels.numpy())
    expected = 100 * theirs.score(scaler.transform(features(test)), test.labels.numpy())
    by_test = StandardScaler().fit_transform(features(test))
    assert abs(100 * theirs.score(by_test, test.labels.numpy()) - expected) > 5
    assert ours == pytest.approx(expected, abs=1.0)
    assert 40 < expected < 90
