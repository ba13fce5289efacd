"""A ridge classifier on frozen features and every training label: a linear probe without chance.

It has a closed form: no draw of labels, no order, no first values. n training images, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.api.rules import Positive, Ruled
from bench.evaluate.task import Score, scored

if TYPE_CHECKING:
    from bench.evaluate.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class RidgeAllConfig(Ruled, section="ridge_all"):
    """``penalty`` on the squared weights, for each training image, of standardised features."""

    penalty: Positive = 0.01
    pool: Literal["mean", "cls"] = "mean"


def ridge_all(encoder: Encoder, recipe: RidgeAllConfig) -> Score:
    """Accuracy of scikit-learn's ridge classifier fitted to all training images."""
    import torch
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = (t.cpu().numpy() for t in encoder.features(recipe.pool, encoder.images.train))
    x_test, y_test = encoder.features(recipe.pool, encoder.images.test)
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=recipe.penalty * len(x)))
    model.fit(x.astype("float64"), y)
    guesses = model.predict(x_test.cpu().numpy().astype("float64"))
    return scored(torch.from_numpy(guesses) == y_test.cpu())
