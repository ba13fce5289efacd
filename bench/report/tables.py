"""The tables a reader sees: a section's frames as columns of words."""

from __future__ import annotations

from dataclasses import dataclass

from bench import registry
from bench.report import checks, claims, noise, reference, words
from bench.report.sections import Section
from bench.rows import StatisticRow
from bench.stats.analysis import COSTS, PER_EPOCH, endpoint_label, rows_of


@dataclass(frozen=True)
class Table:
    """A table in words: file name, title, column heads, rows; ``note`` stands under it.

    ``strong`` holds the (row, column) of cells set bold.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()


def caption(section: Section) -> str:
    """What every table must state about its runs."""
    runs = section.runs
    parts = [
        f"data {section.key[0]}",
        f"model {section.key[1]}",
        f"recipe {section.key[2]}",
        f"seeds {checks.spans(runs['seed'])}",
        f"code {', '.join(checks.code_versions(runs))}",
        f"hardware {'; '.join(checks.hardware(runs)) or 'unknown'}",
        matched(section),
    ]
    text = " · ".join(parts)
    notes = [row.note for row in section.plugins if row.note]
    return " ".join([f"{text}.", *notes])


def matched(section: Section) -> str:
    """Whether the pairs of a section match, by arm where they do not all."""
    said = dict(zip(section.matching["arm"], section.matching["matched"], strict=True))
    if set(said.values()) == {words.MATCHED}:
        return words.MATCHED
    return "; ".join(f"{arm}: {text}" for arm, text in said.items()) or "no pairs to match"


def section_tables(section: Section) -> list[Table]:
    """All tables of a section that have rows."""
    tables = (make(section) for make in TABLES)
    return [table for table in tables if table.rows]


def sentences(section: Section) -> list[tuple[str, str]]:
    """A line a comparison at the main target, each with its method."""
    rows = [row for row in section.rows["targets"] if row["main_target"]]
    order = {name: i for i, name in enumerate(section.analysis.endpoints)}
    rows.sort(key=lambda row: (row["arm"], order.get(row["endpoint"], 9)))
    return [*((row["arm"], words.sentence(row)) for row in rows), *noise.sentences(section)]


# --- accuracy ---------------------------------------------------------------------------------


def accuracy_table(section: Section) -> Table:
    """Accuracy by method and budget, with the paired difference where there is a baseline."""
    measured = {row["endpoint"] for row in section.rows["accuracy"]}
    endpoints = [e for e in section.analysis.endpoints if e in measured]
    gains = _gains(section)
    rates = section.cells.groupby(["arm", "epochs"])[["images_per_s", "pretrain_s"]].mean()
    rate = rates.to_dict("index")
    rows: list[list[str]] = []
    strong: set[tuple[int, int]] = set()
    for (arm, epochs), scores in _by_budget(section).items():
        row = [arm, str(epochs)]
        for endpoint in endpoints:
            found, gain = scores.get(endpoint, {}), gains.get((arm, epochs, endpoint))
            row.append(words.mean_sd(found.get("mean"), found.get("sd")))
            row += [words.gain(gain) if gain else ""] if gains else []
            if gain and claims.differs(gain):
                strong.add((len(rows), len(row) - 1))
        shown = scores.get(section.analysis.endpoint) or next(iter(scores.values()))
        mine = rate[arm, epochs]
        row += [f"{shown['n_ok']}/{shown['n']}", words.number(mine["images_per_s"], 0)]
        rows.append([*row, words.duration(mine["pretrain_s"])])
    compared = ["Δ [95 %]"] if gains else []
    heads = [h for e in endpoints for h in (endpoint_label(e), *compared)]
    columns = ["method", "epochs", *heads, "n ok/n", "images/s", "pre-training"]
    note = "Mean ± sample sd over seeds, in per cent, after the last epoch."
    if compared:
        note = (
            f"{_excluding(section)} {note} Δ is method - baseline on the same seeds at equal "
            "epochs, with its paired t interval; bold where that excludes 0."
        )
    title = "Accuracy by method and budget"
    return Table("accuracy", title, columns, rows, note, frozenset(strong))


def _excluding(section: Section) -> str:
    """How many intervals exclude 0, and how many would by chance alone."""
    rows = section.rows["differences"]
    asked = [row for row in rows if claims.obstacle(row) is None]
    barred = len(rows) - len(asked)
    lines = []
    if asked:
        found, chance = sum(map(claims.differs, asked)), section.analysis.alpha * len(asked)
        lines.append(
            f"{found} of {len(asked)} differences exclude 0 ({chance:.1f} would by chance)."
        )
    if barred:
        lines.append(f"Of {barred} differences nothing is claimed (pilot, unmatched or unfair).")
    return " ".join(lines)


def _by_budget(section: Section) -> dict[tuple[str, int], dict[str, words.Row]]:
    """Rows by endpoint of each arm and budget: the baseline above its variants, then by epochs."""

    def order(row: words.Row) -> tuple[str, bool, str, int]:
        return row["base_arm"], row["arm"] != row["base_arm"], row["arm"], row["epochs"]

    found: dict[tuple[str, int], dict[str, words.Row]] = {}
    for row in sorted(section.rows["accuracy"], key=order):
        found.setdefault((row["arm"], row["epochs"]), {})[row["endpoint"]] = row
    return found


def _gains(section: Section) -> dict[tuple[str, int, str], words.Row]:
    rows = section.rows["differences"]
    return {(row["arm"], row["epochs"], row["endpoint"]): row for row in rows}


def difference_table(section: Section) -> Table:
    """Paired differences at equal budgets with their tests."""
    alpha = section.analysis.alpha
    known = any(not words.is_missing(row["images"]) for row in section.rows["differences"])
    rows = [
        [
            row["arm"],
            str(row["epochs"]),
            endpoint_label(row["endpoint"]),
            words.gain(row),
            *([words.over_images(row)] if known else []),
            words.p_value(row["p"]),
            words.sign_flip(row["p_sign_flip"], row["n"], alpha),
            words.number(row["correlation"]),
            f"{row['n']}/{row['pairs']}",
        ]
        for row in section.rows["differences"]
    ]
    columns = ["method", "epochs", "endpoint", "Δ [95 %]", *(["test images"] if known else [])]
    columns += ["p (t)", "p (sign flip)", "correlation of arms", "pairs ok/n"]
    note = "Two-sided p values of single tests, not adjusted for the number of rows."
    if known:
        note += (
            " Test images: 95 % interval of Δ for these runs on other test images of the kind, by "
            "a bootstrap over images, paired between the arms; and the share of images that one "
            "arm of a pair gets right and the other does not. It holds no uncertainty of seeds, as "
            "Δ's own interval holds none of images."
        )
    return Table("differences", "Difference at equal budgets", columns, rows, note)


# --- epochs to target -------------------------------------------------------------------------


def target_table(section: Section) -> Table:
    """Epochs to target: rho, its interval, the tests and the verdict."""
    rows = [_target_row(row, section) for row in section.rows["targets"]]
    columns = ["method", "endpoint", "target (%)", "baseline epochs", "method epochs"]
    columns += ["ρ epochs [95 %]", "ρ wall time", "p (t)", "p (sign flip)"]
    columns += [*(row.head for row in _shown_statistics()), "n/seeds", "verdict"]
    tested = {row["endpoint"]: row["comparisons"] for row in section.rows["targets"]}
    counts = ", ".join(f"{endpoint_label(name)} {count:.0f}" for name, count in tested.items())
    note = (
        "ρ = the baseline's epochs over the method's epochs to the same accuracy; above 1 the "
        "method needs fewer. The target is the baseline's mean at its epochs. The interval inverts "
        "the paired t test; it covers seeds, not test images. A run that diverged counts as not "
        "reaching the target. Both p are adjusted over all comparisons of an endpoint (Holm; "
        f"{counts}). * primary; targets "
        f"{'fixed in the plan' if section.analysis.planned else 'by default, without a plan'}."
    )
    return Table("epochs_to_target", "Epochs to target", columns, rows, note)


def _target_row(row: words.Row, section: Section) -> list[str]:
    return [
        row["arm"],
        endpoint_label(row["endpoint"]) + (" *" if row["primary"] else ""),
        words.number(row["target_top1"]),
        str(row["target_epochs"]),
        words.number(row["epochs_variant"], 0),
        words.factor(row),
        words.factor(row, "pretrain_s"),
        words.p_value(row["p_holm"]),
        words.sign_flip(row["p_sign_flip_holm"], row["n"], section.analysis.alpha),
        *(words.number(row.get(s.column), s.digits) for s in _shown_statistics()),
        words.seeds(row),
        row["verdict"],
    ]


def _shown_statistics() -> list[StatisticRow]:
    """Statistics that are columns of the table of epochs to target."""
    rows = [registry.STATISTICS.row(name) for name in registry.STATISTICS.ordered()]
    return [row for row in rows if row.head]


def half_table(section: Section) -> Table:
    """Equal accuracy at half the epochs (non-inferiority), and RAUC."""
    margin = section.analysis.margin
    unit = "point" if margin == 1 else "points"
    rows = []
    for row in section.rows["targets"]:
        area = words.number(row.get("rauc"), 4)
        spread = words.interval(row.get("rauc_low"), row.get("rauc_high"), 4)
        half = row["target_epochs"] / 2
        name = endpoint_label(row["endpoint"])
        gap = words.number(row.get("half_difference"), sign=True)
        limits = words.interval(row.get("half_low"), row.get("half_high"), sign=True)
        budgets = f"{half:g} against {row['target_epochs']}"
        own = words.number(row.get("half_base"), sign=True)
        tested = [words.p_value(row["half_p_holm"]), row["half_words"]]
        area = f"{area} {spread}".strip()
        rows.append([row["arm"], name, budgets, gap, limits, own, *tested, area])
    columns = ["method", "endpoint", "epochs", "Δ", "95 % limits", "baseline itself"]
    columns += ["p", "half the epochs", "RAUC [95 %]"]
    note = (
        f"Half the epochs suffice if the method there is at most {margin:g} {unit} worse: the "
        f"lower limit lies above {words.minus(margin)}; they do not if the upper one lies below "
        "it. Each limit is one-sided; beside them stands what the baseline itself loses there. p "
        "is that of the nearer side, adjusted over all comparisons of an endpoint (Holm). RAUC is "
        "the ratio of the areas under accuracy against log2 epochs, method over baseline, on the "
        "budgets that both have."
    )
    return Table("half_the_epochs", "Half the epochs", columns, rows, note)


# --- cost -------------------------------------------------------------------------------------


def cost_table(section: Section) -> Table:
    """What one epoch of pre-training costs each arm."""
    rows = [
        [
            row["arm"],
            words.number(row["images_per_s"], 0),
            words.duration(row[PER_EPOCH["pretrain_s"]]),
            words.device_time(row[PER_EPOCH["device_hours"]]),
            words.si(row[PER_EPOCH["flops"]]),
            words.number(row[PER_EPOCH["images_seen"]], 0),
            words.number(row["peak_memory_mib"], 0),
            words.percent(row["data_wait_share"]),
            words.duration(row["finetune_s"]),
        ]
        for row in section.rows["costs"]
    ]
    columns = ["method", "images/s", "time/epoch", "device time/epoch", "FLOPs/epoch"]
    columns += ["images/epoch", "peak memory (MiB)", "waiting for data", "fine-tuning"]
    note = "Medians over the finished cells of an arm. Pre-training only, but for the last column."
    return Table("cost", "Cost of an epoch", columns, rows, note)


def saving_table(section: Section) -> Table:
    """Rho on every cost axis, and what the target accuracy costs either arm."""
    rows = [
        [
            row["arm"],
            f"{endpoint_label(row['endpoint'])} {words.number(row['target_top1'])} %",
            words.factor(row),
            *(words.factor(row, axis) for axis in COSTS),
            words.ratio_of(row, "device_hours", words.device_time),
            words.ratio_of(row, "flops", words.si),
        ]
        for row in section.rows["targets"]
        if row["main_target"]
    ]
    columns = ["method", "target", "ρ epochs", *(f"ρ {name}" for name in COSTS.values())]
    columns += ["device time to target", "FLOPs to target"]
    note = (
        "Cost of the accuracy: baseline → method. The intervals carry the uncertainty of the "
        "accuracy; the cost of an epoch is taken as known."
    )
    return Table("cost_to_target", "Cost to target", columns, rows, note)


# --- ablations and published numbers ----------------------------------------------------------


def ablation_table(section: Section) -> Table:
    """Variants of one baseline side by side at the main target's budget."""
    targets = section.targets
    gains = _gains(section)
    rows = []
    if not targets.empty:
        costs = section.costs.set_index("arm")
        mine = targets[targets["primary"]]
        for base_arm, group in mine.groupby("base_arm"):
            for row in rows_of(group) if len(group) > 1 else []:
                at = (row["arm"], row["target_epochs"], row["endpoint"])
                slow = words.relative(costs, row["arm"], str(base_arm))
                gain = words.gain(gains[at]) if at in gains else words.NONE
                said = words.NONE if words.is_missing(row["matched"]) else row["matched"]
                shown = [gain, words.factor(row), slow, said]
                rows.append([row["arm"], str(row["target_epochs"]), *shown, row["verdict"]])
    columns = ["method", "epochs", "Δ [95 %]", "ρ epochs", "time/epoch against baseline"]
    columns += ["matched", "verdict"]
    note = "Primary endpoint at the main target's budget; Holm over all comparisons."
    return Table("ablations", "Ablations", columns, rows, note)


def noise_table(section: Section) -> Table:
    """What two equal arms differ by, and the seeds that takes."""
    return Table("noise", "Noise floor", noise.COLUMNS, noise.table_rows(section), noise.NOTE)


def reference_table(section: Section) -> Table:
    """Published numbers beside our baselines; only for ImageNet."""
    rows = [
        [
            row["method"],
            row["implementation"],
            row["encoder"],
            str(row["epochs"]),
            endpoint_label(row["endpoint"]),
            words.number(row["published"]),
            words.number(row["ours"]),
            words.number(row["ours"] - row["published"], sign=True),
            "within tolerance" if row["within"] else "outside tolerance",
            f"{row['source']} ({row['quality']})",
        ]
        for row in reference.beside(section.accuracy, section.key[0], section.key[1])
    ]
    columns = ["method", "implementation", "encoder", "epochs", "endpoint", "published", "ours"]
    columns += ["ours - published", f"± {reference.TOLERANCE:g}", "source"]
    note = (
        "Published numbers are a reference, never an arm: other code, other hardware, one seed. "
        f"Independent reproductions of one cell spread by about {reference.TOLERANCE:g} point."
    )
    return Table("published", "Published reference", columns, rows, note)


TABLES = (
    accuracy_table,
    target_table,
    half_table,
    difference_table,
    cost_table,
    saving_table,
    ablation_table,
    noise_table,
    reference_table,
)
