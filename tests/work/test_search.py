"""The search of ``tune``: which settings it asks for, in which order, and which end early."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("optuna")  # an environment from before it was a dependency still collects

from bench.errors import UsageError
from bench.work.search import Axis, Search, parse_axis

AXES = [parse_axis("a.x=1,2,3"), parse_axis("b.y=[1,2],[3]")]
RANGE = [parse_axis("a.x=1e-4..1e-1:log"), parse_axis("a.n=2..8")]


def played(search: Search, peak: float = 1e-2) -> list[tuple[str, ...]]:
    """All settings that a search asks for, told how near the first is to its best."""
    found = []
    while asked := search.ask():
        found += [one.settings for one in asked]
        values = [float(one.settings[0].partition("=")[2]) for one in asked]
        scores = [-abs(math.log10(value / peak)) for value in values]
        assert search.tell(list(zip(asked, scores, strict=True)), 0, last=True) == []
    return found


def test_a_grid_is_asked_once_in_the_order_typed() -> None:
    wanted = [(f"a.x={x}", f"b.y={y}") for x in "123" for y in ("[1,2]", "[3]")]
    assert played(Search(AXES, "", 0)) == wanted
    few = played(Search(AXES, "grid", 4))
    assert len(set(few)) == 4
    assert few == [point for point in wanted if point in few]


@pytest.mark.parametrize("how", ["random", "tpe"])
def test_the_same_answers_lead_to_the_same_questions(how: str) -> None:
    first = played(Search(RANGE, how, 30))
    assert first == played(Search(RANGE, how, 30))
    assert first[:10] == played(Search(RANGE, how, 10)), "more trials go on from fewer"
    assert first != played(Search(RANGE, how, 30, seed=1))
    other = played(Search(RANGE, how, 30), peak=1e-4)
    assert (first == other) == (how == "random")
    for x, n in first:
        assert 1e-4 <= float(x.removeprefix("a.x=")) <= 1e-1
        assert int(n.removeprefix("a.n=")) in range(2, 9)


def test_tpe_looks_where_it_was_good() -> None:
    def far(how: str) -> float:
        tried = played(Search(RANGE, how, 60), peak=2e-4)[-20:]
        values = [float(x.removeprefix("a.x=")) for x, _ in tried]
        return sum(abs(math.log10(v / 2e-4)) for v in values) / len(values)

    assert far("tpe") < 0.75 * far("random")


def test_what_is_below_the_median_ends_early_and_failures_are_no_scores() -> None:
    search = Search([parse_axis("a.x=1,2,3,4,5")], "", 0)
    asked = search.ask()
    scored = list(zip(asked, [10.0, 30.0, None, 20.0, 40.0], strict=True))
    kept = search.tell(scored, 0, last=False)
    assert [one.label for one in kept] == ["a.x=2", "a.x=5"]
    assert search.tell([(one, 50.0) for one in kept], 1, last=True) == []
    states = [search.study.trials[one.trial.number].state.name for one in asked]
    assert states == ["PRUNED", "COMPLETE", "FAIL", "PRUNED", "COMPLETE"]


def test_axes_are_values_or_ranges() -> None:
    assert parse_axis("a.x=1e-3,2e-3") == Axis("a.x", ("1e-3", "2e-3"))
    assert parse_axis("a.x=1,1") == Axis("a.x", ("1",))
    assert parse_axis("a.x=1e-4..1e-2:log") == Axis("a.x", (), 1e-4, 1e-2, True)
    assert parse_axis("a.n=-2..8") == Axis("a.n", (), -2, 8, False, True)


@pytest.mark.parametrize(
    ("key", "whole"),
    [
        ("pretrain.weight_decay", False),
        ("simmim.pretrain.weight_decay", False),
        ("mae.mask_ratio", False),
        ("mae.decoder_depth", True),
        ("knn.k", True),
    ],
)
def test_whole_ends_search_whole_numbers_where_a_setting_is_one(key: str, whole: bool) -> None:
    assert parse_axis(f"{key}=0..1").whole is whole


@pytest.mark.parametrize(
    ("axis", "how", "said"),
    [
        ("a.x", "", "cannot read grid axis 'a.x'"),
        ("a.x=,", "", "cannot read grid axis"),
        ("a.x=2..1", "", "is empty or not above 0"),
        ("a.x=0..1:log", "", "is empty or not above 0"),
        ("a.x=0..1", "grid", "'a.x' is a range, and a grid needs values"),
        ("a.x=0..1", "randm", "unknown search 'randm'. Did you mean 'random'"),
    ],
)
def test_what_cannot_be_searched_is_told(axis: str, how: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Search([parse_axis(axis)], how, 0)
