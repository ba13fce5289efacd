"""The words and abbreviations of a report, explained on its page."""

from __future__ import annotations

TERMS = {
    "shown": "half the epochs reach the baseline's accuracy within the plan's margin",
    "refuted": "half the epochs stay below it by more than the margin",
    "open": "neither is significant yet; the number of seeds that would tell stands beside it",
    "not measurable": "the question has no answer here; why stands beside it",
    "ρ": "rho: the baseline's epochs over the method's epochs to the same accuracy; above ×1 the "
    "method needs fewer, ×2 is half the epochs",
    "Δ": "method minus baseline, seed by seed at equal epochs, in points",
    "[a, b]": "95 % interval over pre-training seeds; it does not cover the choice of test images",
    "at least, at most": "the interval is open: it reaches beyond the smallest or largest budget",
    "target": "the baseline's mean accuracy at a budget fixed beforehand",
    "curve flat": "the baseline does not rise to its target, so epochs to it are noise",
    "matched ✓": "every pair of runs saw the same order, crops and masks",
    "pilot": "fewer than five seeds: numbers to plan with, no claim",
    "top-1": "share of test images whose class is named right, after the last epoch",
    "fine-tune, linear-probe, k-NN": "the whole encoder trained on; a linear layer on frozen "
    "features; a vote of the nearest training images",
    "n ok/n": "seeds that finished, of those run",
    "p": "chance of such a difference if there were none; Holm: adjusted over all comparisons",
    "sign flip": "exact permutation test on the signs of the paired differences",
    "RAUC": "ratio of the areas under accuracy against log2 epochs, method over baseline",
    "sd": "sample standard deviation over seeds",
}
"""Term: meaning, in the order of the page."""

HEADS = {
    "Δ [95 %]": "Δ",
    "n ok/n": "n ok/n",
    "p (t)": "p",
    "p (sign flip)": "sign flip",
    "RAUC [95 %]": "RAUC",
    "ρ epochs [95 %]": "ρ",
    "ρ epochs": "ρ",
    "ρ wall time": "ρ",
    "fine-tune top-1": "fine-tune, linear-probe, k-NN",
    "linear-probe top-1": "fine-tune, linear-probe, k-NN",
    "k-NN top-1": "fine-tune, linear-probe, k-NN",
    "target (%)": "target",
}
"""Column head: the term that explains it where a pointer rests on it."""


def meaning(head: str) -> str:
    """What a column head means, or nothing where it speaks for itself."""
    return TERMS.get(HEADS.get(head, ""), "")
