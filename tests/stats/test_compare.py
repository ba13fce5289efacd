"""Which seeds and budgets of two arms are set against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.stats import frames, means
from bench.stats.analysis import Analysis
from bench.stats.columns.sign_flip import sign_flip
from bench.stats.compare import (
    cost_ratios,
    curves,
    differences,
    pair_curves,
    pairs,
    targets,
)
from bench.stats.saving import Curve
from bench.store.record import Record
from tests.support.synthetic import PLAN, RISING, runs

BASE = pd.DataFrame({100: [80.0] * 4, 200: [82.0] * 4}, index=range(4))


def variant(*at_200: float) -> pd.DataFrame:
    return pd.DataFrame({100: [81.0] * 4, 200: at_200}, index=range(4))


def test_a_budget_that_half_of_the_seeds_have_run_is_left_out() -> None:
    nan = math.nan
    base, ours = pair_curves(BASE, variant(83, 83, nan, nan), 200)
    assert ours.epochs.tolist() == [100]
    assert ours.scores.shape == (4, 1)
    assert base.scores.shape == (4, 2)


def test_a_seed_that_lacks_a_budget_of_the_rest_is_left_out() -> None:
    base, ours = pair_curves(BASE, variant(83, 84, 85, math.nan), 200)
    assert ours.epochs.tolist() == [100, 200]
    assert ours.scores[:, 1].tolist() == [83, 84, 85]
    assert base.scores.shape == (3, 2)


def test_a_failed_run_of_the_variant_scores_nothing_and_stays() -> None:
    _, ours = pair_curves(BASE, variant(83, 84, 85, -math.inf), 200)
    assert ours.scores[:, 1].tolist() == [83, 84, 85, 0]


def test_a_seed_whose_baseline_failed_at_the_target_is_left_out() -> None:
    base = BASE.copy()
    base.loc[1, 200] = -math.inf
    theirs, ours = pair_curves(base, variant(83, 84, 85, 86), 200)
    assert ours.scores[:, 1].tolist() == [83, 85, 86]
    assert theirs.scores.tolist() == [[80, 82]] * 3


def framed(records: list[Record]) -> tuple[Analysis, pd.DataFrame, pd.DataFrame]:
    """The plan's analysis, the scores and the costs of synthetic records."""
    analysis = Analysis.of(PLAN)
    cells = frames.cells(frames.tidy((vars(r) for r in records), analysis))
    return analysis, frames.long(cells), frames.costs(cells)


def test_a_target_tells_epochs_their_share_and_what_they_cost() -> None:
    analysis, scores, costs = framed(runs(RISING, noise=0.0))
    found = cost_ratios(targets(scores, analysis), costs)
    (row,) = found[(found["endpoint"] == "finetune_top1") & found["main_target"]].to_dict("records")
    epochs = 100 * 2 ** (0.4 / 1.1)  # 81 lies between 80.6 at 100 epochs and 81.7 at 200
    assert row["epochs_variant"] == pytest.approx(epochs, rel=0.006)
    assert row["rho"] == pytest.approx(200 / row["epochs_variant"])
    assert row["saved_epochs"] == pytest.approx(200 - row["epochs_variant"])
    assert row["saved_share"] == pytest.approx(row["saved_epochs"] / 200)
    assert (row["seeds"], row["n"], row["failed_seeds"]) == (5, 5, 0)
    assert row["rho_pretrain_s"] == pytest.approx(row["rho"] * 2.0 / 2.5)
    assert row["pretrain_s_base"] == pytest.approx(200 * 2.0)
    assert row["pretrain_s_variant"] == pytest.approx(row["epochs_variant"] * 2.5)
    assert row["rho_flops"] == pytest.approx(row["rho"] / 1.1)
    assert row["rho_images_seen"] == pytest.approx(row["rho"])


def test_a_cost_of_zero_was_not_measured() -> None:
    records = runs(RISING, noise=0.0)
    unmeasured = [replace(r, flops=0.0) if r.epochs == 100 else r for r in records]
    _, _, costs = framed(unmeasured)
    assert costs.set_index("arm")["flops_per_epoch"].to_dict() == pytest.approx(
        {"mae": 1e9, "mae+mto": 1.1e9}
    )


def test_only_the_planned_endpoint_at_the_planned_target_is_primary() -> None:
    analysis, scores, _ = framed(runs(RISING))
    found = targets(scores, analysis)
    primary = found[found["primary"]]
    assert primary[["endpoint", "target_epochs"]].to_numpy().tolist() == [["finetune_top1", 200]]
    assert found["target_epochs"].tolist() == [200, 400] * 2


def test_p_values_are_adjusted_within_an_endpoint() -> None:
    analysis, scores, _ = framed(runs({**RISING, "mae+mto(recal)": [80.2, 81.2, 82.1]}))
    for _, family in targets(scores, analysis).groupby("endpoint"):
        assert set(family["comparisons"]) == {4}
        assert family["p_holm"].to_numpy() == pytest.approx(means.holm(family["p"].to_numpy()))


@pytest.mark.parametrize(("seconds", "known"), [(0.5, True), (0.0, False)])
def test_a_cost_below_one_counts_and_one_of_nothing_is_unknown(seconds: float, known: bool) -> None:
    _, _, costs = framed([replace(r, pretrain_s=seconds) for r in runs(RISING)])
    assert costs["pretrain_s_per_epoch"].notna().eq(known).all()


def test_signs_are_flipped_of_the_differences_at_the_target() -> None:
    """Four of five seeds, the strongest, are for the variant at 200 epochs."""
    rng = np.random.default_rng(0)
    curves = np.array([[79.0, 82.0, 83.0], [89.0, 82.0, 83.0]] * 2 + [[80.0, 82.0, 83.0]])
    base = Curve(np.array([100, 200, 400]), curves)
    shift = np.stack([rng.permutation([-1, 1, -1, 1, 1]), [-1, 2, 3, 4, 5], [1, -1, 1, -1, -1]], 1)
    found = sign_flip(base, Curve(base.epochs, curves + shift), 200, Analysis())
    assert found == {"p_sign_flip": 4 / 2**5}
    assert sign_flip(base, Curve(base.epochs[:1], curves[:, :1]), 200, Analysis()) == {}


def test_a_seed_that_failed_at_two_budgets_is_one_failed_seed() -> None:
    analysis, scores, _ = framed(runs(RISING))
    mine, first = scores["arm"] == "mae+mto", scores["epochs"] < 400
    scores.loc[mine & (scores["seed"] == 0) & first, "ok"] = False
    scores.loc[mine & (scores["seed"] == 1) & (scores["epochs"] == 100), "ok"] = False
    assert set(targets(scores, analysis)["failed_seeds"]) == {2}


def test_a_baseline_that_failed_elsewhere_has_no_score_there() -> None:
    base = BASE.copy()
    base.loc[1, 100] = -math.inf
    theirs, _ = pair_curves(base, variant(83, 84, 85, 86), 200)
    assert np.isnan(theirs.scores[1, 0])
    assert theirs.scores[1, 1] == 82


def lines(arm: str, scores: dict[tuple[int, int], float]) -> pd.DataFrame:
    """Scores by epochs and seed in the long form; a score of NaN is that of a run that diverged."""
    rows = [
        {"data": "d", "model": "m", "recipe": "r", "base_arm": "mae", "arm": arm}
        | {"endpoint": "finetune_top1", "epochs": epochs, "seed": seed, "score": score}
        | {"ok": not math.isnan(score), "diverged": math.isnan(score)}
        for (epochs, seed), score in scores.items()
    ]
    return pd.DataFrame(rows)


def budget(epochs: int, *scores: float) -> dict[tuple[int, int], float]:
    return {(epochs, seed): score for seed, score in enumerate(scores)}


def test_differences_are_taken_seed_by_seed_where_both_have_a_score() -> None:
    base = lines("mae", budget(100, 80, 82, 81, 83, 79) | budget(200, 90, 91))
    mine = lines("mae+mto", budget(100, 81, 82.5, math.nan, 82, 80.5) | budget(400, 95, 96))
    alone = lines("mae+null", {(100, 7): 80.0})
    (row,) = differences(pd.concat([alone, mine, base]), 0.1).to_dict("records")
    gaps = np.array([1.0, 0.5, -1.0, 1.5])
    wanted = means.estimate(gaps, 0.1)
    assert (row["arm"], row["epochs"], row["n"], row["pairs"]) == ("mae+mto", 100, 4, 5)
    assert row["difference"] == pytest.approx(0.5)
    assert (row["sd"], row["low"], row["high"], row["p"]) == pytest.approx(
        (wanted.sd, wanted.low, wanted.high, wanted.p)
    )
    assert row["p_sign_flip"] == means.sign_flip_p(gaps) == 8 / 16
    ours, theirs = np.array([81, 82.5, 82, 80.5]), np.array([80.0, 82, 83, 79])
    assert row["correlation"] == pytest.approx(np.corrcoef(ours, theirs)[0, 1])


def test_pairs_are_sorted_and_hold_no_arm_twice() -> None:
    base = lines("mae", budget(200, 90, 91) | budget(100, 80, 81))
    found = pairs(pd.concat([lines("mae+mto", budget(200, 92, 93) | budget(100, 82, 83)), base]))
    assert found[["epochs", "seed"]].to_numpy().tolist() == [[100, 0], [100, 1], [200, 0], [200, 1]]
    assert found["base_score"].tolist() == [80, 81, 90, 91]
    assert found["score"].tolist() == [82, 83, 92, 93]


def test_curves_tell_a_run_that_diverged_from_one_that_is_missing_or_failed_otherwise() -> None:
    mine = lines("mae+mto", budget(200, 85, math.nan) | budget(100, 82))
    mine = pd.concat([mine, lines("mae+mto", {(100, 1): math.nan}).assign(diverged=False)])
    found = curves(pd.concat([mine, lines("mae", budget(100, 80, 81, 82))]))
    assert list(found) == ["mae", "mae+mto"]
    assert found["mae"].to_numpy().tolist() == [[80], [81], [82]]
    assert found["mae+mto"].columns.tolist() == [100, 200]
    assert found["mae+mto"].loc[0].tolist() == [82, 85]
    assert found["mae+mto"].loc[1].isna().tolist() == [True, False]
    assert found["mae+mto"].loc[1, 200] == -math.inf
    assert found["mae+mto"].index.tolist() == [0, 1]


def test_a_budget_that_the_baseline_never_finished_is_left_out() -> None:
    base = BASE.assign(**{"50": -math.inf}).rename(columns={"50": 50})[[50, 100, 200]]
    theirs, ours = pair_curves(base, variant(83, 84, 85, 86), 200)
    assert theirs.epochs.tolist() == [100, 200]
    assert ours.epochs.tolist() == [100, 200]
    assert theirs.scores.shape == (4, 2)


def test_seeds_that_only_one_arm_has_are_left_out() -> None:
    theirs, ours = pair_curves(BASE.loc[:2], variant(83, 84, 85, 86).loc[1:], 200)
    assert ours.scores[:, 1].tolist() == [84, 85]
    assert len(theirs.scores) == 2
    theirs, ours = pair_curves(BASE, variant(83, 84, 85, 86), 300)
    assert len(ours.scores) == 0


def test_a_variant_whose_baseline_is_missing_has_an_empty_line() -> None:
    plan = Analysis(target_epochs=100)
    (row,) = targets(lines("mae+mto", budget(100, 80, 81)), plan).to_dict("records")
    assert (row["state"], row["n"], row["seeds"], row["target_epochs"]) == ("empty", 0, 2, 100)
    assert row["main_target"]
    assert row["primary"]
    assert row["comparisons"] == 0
    assert all(math.isnan(row[f"{name}_holm"]) for name in ("p", "p_sign_flip", "half_p"))


def test_statistics_are_asked_of_comparisons_that_have_seeds() -> None:
    asked = []

    def statistic(base: Curve, variant: Curve, reference: int, plan: Analysis) -> dict[str, object]:
        asked.append((base.scores.tolist(), variant.scores.tolist(), reference, plan.margin))
        return {"n_base": len(base.scores)}

    base = lines("mae", budget(100, 80, 81) | budget(200, 90, 91))
    mine = lines("mae+mto", budget(100, 82, 83) | budget(200, 92, 93))
    none = lines("mae+null", {(100, 7): 80.0})
    plan = Analysis(target_epochs=200, margin=3.0)
    rows = targets(pd.concat([base, mine, none]), plan, [statistic]).set_index("arm")
    assert asked == [([[80, 90], [81, 91]], [[82, 92], [83, 93]], 200, 3.0)]
    assert rows.loc["mae+mto", "n_base"] == 2
    assert math.isnan(rows.loc["mae+null", "n_base"])


def test_no_scores_have_no_targets_and_no_costs() -> None:
    empty = targets(lines("mae", budget(100, 80, 81)), Analysis())
    assert empty.empty
    assert cost_ratios(empty, pd.DataFrame()).empty


def test_every_bound_is_turned_into_costs_and_unknown_costs_stay_unknown() -> None:
    names = {"data": "d", "model": "m", "recipe": "r", "base_arm": "mae"}
    line = {**names, "rho": 1.5, "rho_low": 1.2, "rho_high": 2.0, "bound": 4.0}
    line |= {"target_epochs": 200, "epochs_variant": 133.0}
    found = pd.DataFrame([{**line, "arm": arm} for arm in ("mae+mto", "mae+null")])
    each = {f"{name}_per_epoch": 2.0 for name in ("pretrain_s", "device_hours", "flops")}
    costs = pd.DataFrame(
        [
            {**names, "arm": "mae", **each, "images_seen_per_epoch": 10.0},
            {**names, "arm": "mae+mto", **each, "images_seen_per_epoch": 8.0},
        ]
    )
    ours, null = cost_ratios(found, costs).to_dict("records")
    assert [ours[f"{c}_images_seen"] for c in ("rho", "rho_low", "rho_high", "bound")] == (
        pytest.approx([1.875, 1.5, 2.5, 5.0])
    )
    assert (ours["rho_flops"], ours["flops_base"], ours["flops_variant"]) == (1.5, 400.0, 266.0)
    assert (null["arm"], null["images_seen_base"]) == ("mae+null", 2000.0)
    assert math.isnan(null["rho_images_seen"])
    assert not any("per_epoch" in name for name in ours)
    assert len(cost_ratios(found, costs[1:])) == 2
