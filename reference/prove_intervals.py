"""Do intervals hold the truth as often as they say, and how often is an equally good method called worse?

    python -m reference.prove_intervals [--quick] [--repetitions 2000] [--out docs/intervals.jsonl]

Simulated answers, so that the truth is known. Method j with seed s answers example n rightly where

    (t (r^(1/2) f_n + (1 - r)^(1/2) g_jn) + e_jsn) / (1 + t^2)^(1/2) < c_j + w_j z_js,    f, g, e, z standard normal

so seeds of a method agree on what is hard (t^2 = 3: latent correlation 0.75), methods do in part (r = 0.5), and w is
such that accuracies of seeds have the standard deviation asked for. Expected accuracy is P(right), set; macro-f1 is of
three classes (0.7, 0.2, 0.1), the rare ones harder, and its truth is that of infinitely many examples and seeds.

Prints Markdown tables, writes their numbers, and (with the usual --out) docs/intervals.md. About four minutes on one
core; --quick: half a minute.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from anacrusis.measure.crossed import alone, between, holm, over_seeds, p_value
from anacrusis.measure.intervals import _curve, bootstrap
from anacrusis.task.metrics import find

Floats = NDArray[np.float64]
RESULTS = Path(__file__).parents[1] / "docs" / "intervals.jsonl"
HARD2, SHARED = 3.0, 0.5  # t^2 and r
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
AT_ONCE = 3_000_000  # answers held
SIZES, LEVELS, SDS = (60, 200, 1000), (0.6, 0.8, 0.95), (0.0, 0.02, 0.05)
CLASSES = np.array([0.7, 0.2, 0.1])
EASE = np.array([0.25, -0.4, -0.6])  # of each class, added to c
INSTEAD = np.array([[0, 0.7, 0.3], [0.8, 0, 0.2], [0.7, 0.3, 0]])  # what a class is mistaken for


@cache
def latent(p: float, sd: float) -> tuple[float, float]:
    """c and w for expected accuracy p and a standard deviation sd of accuracy over seeds."""
    if sd == 0:
        return float(stats.norm.ppf(p)), 0.0

    def excess(w: float) -> float:
        rates = stats.norm.cdf(stats.norm.ppf(p) * np.sqrt(1 + w * w) + w * NODES)
        return float(np.sqrt(max(WEIGHTS @ rates**2 - p * p, 0)) - sd)

    w = optimize.brentq(excess, 1e-4, 3)
    return float(stats.norm.ppf(p) * np.sqrt(1 + w * w)), float(w)


def noise(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> Floats:
    """(R, k, S, N) of difficulties, standard normal."""
    r, k, _, n = shape
    draw = [rng.standard_normal(s, dtype=np.float32) for s in ((r, 1, 1, n), (r, k, 1, n), shape)]
    hard = np.sqrt(HARD2) * (np.sqrt(SHARED) * draw[0] + np.sqrt(1 - SHARED) * draw[1])
    return np.asarray((hard + draw[2]) / np.sqrt(1 + HARD2))


def answers(
    rng: np.random.Generator, count: int, ps: tuple[float, ...], seeds: int, n: int, sd: float
) -> Iterator[tuple[Floats, Floats]]:
    """Right or wrong (R, k, S, N) of methods with expected accuracies ps, and each seed's own accuracy (R, k, S)."""
    c, w = np.array([latent(p, sd) for p in ps]).T[:, :, None]
    rows = max(1, AT_ONCE // (len(ps) * seeds * n))
    for start in range(0, count, rows):
        shape = (min(rows, count - start), len(ps), seeds)
        at = c + w * rng.standard_normal(shape)
        yield (noise(rng, (*shape, n)) < at[..., None]).astype(np.float64), stats.norm.cdf(at)


def holds(low: Floats, high: Floats, truth: Any) -> NDArray[np.bool_]:
    return (low <= np.asarray(truth) + 1e-12) & (np.asarray(truth) <= high + 1e-12)


def coverage(rng: np.random.Generator, count: int) -> Iterator[dict[str, Any]]:
    """Of accuracy: one seed against that seed's own accuracy, several against the expected one."""
    for seeds, n, p, sd in product((1, 3, 5), SIZES, LEVELS, SDS):
        held, widths, percentiles = [], [], []
        for y, own in answers(rng, count, (p,), seeds, n, sd):
            value, low, high = alone(y[:, 0], 0.0, 0.95)
            truth = own[:, 0, 0] if seeds == 1 else p
            held.append(holds(low, high, truth))
            widths.append(high - low)
            if seeds == 1:  # what 2.5 % and 97.5 % of very many resamples are
                ends = stats.binom.ppf([[0.025], [0.975]], n, value) / n
                percentiles.append(holds(ends[0], ends[1], truth))
        record = {"what": "score", "metric": "accuracy", "seeds": seeds, "n": n, "truth": p, "sd": sd,
                  "of": count, "coverage": float(np.concatenate(held).mean()),
                  "width": float(np.concatenate(widths).mean())}  # fmt: skip
        yield record | ({"percentile": float(np.concatenate(percentiles).mean())} if seeds == 1 else {})


def macro_f1(rates: Floats) -> float:
    """Of infinitely many examples, when a share rates (3,) of each class is right."""
    table = np.diag(rates * CLASSES) + (CLASSES * (1 - rates))[:, None] * INSTEAD
    return float(np.mean(2 * np.diag(table) / (table.sum(axis=0) + table.sum(axis=1))))


def coverage_f1(rng: np.random.Generator, count: int) -> Iterator[dict[str, Any]]:
    """Of macro-f1, by the public functions; one seed also by percentiles of resamples."""
    metric = find("macro-f1")
    for seeds, n, p, sd in product((1, 3), SIZES, (0.6, 0.8, 0.95), (0.0, 0.03)):
        if seeds == 1 and sd:
            continue  # other seeds are out of its sight
        c, w = latent(p, sd)
        truth = float(WEIGHTS @ [macro_f1(stats.norm.cdf(c + EASE + w * z)) for z in NODES])
        found: dict[str, list[tuple[bool, float]]] = {}
        for i in range(count):
            gold = rng.choice(3, p=CLASSES, size=n)
            instead = (rng.random(n)[:, None] > INSTEAD.cumsum(axis=1)[gold]).sum(axis=1)
            at = c + w * rng.standard_normal((seeds, 1)) + EASE[gold]
            runs = list(np.where(noise(rng, (1, 1, seeds, n))[0, 0] < at, gold, instead))
            intervals = {"coverage": over_seeds(metric, runs, gold, 3)}
            if seeds == 1:
                intervals["bootstrap"] = bootstrap(metric, runs[0], gold, classes=3, n=500, seed=i)
                low, high = np.quantile(_curve(metric, (runs[0], gold, 3), 500, i), [0.025, 0.975])
                found.setdefault("percentile", []).append((bool(low <= truth <= high), high - low))
            for name, x in intervals.items():
                found.setdefault(name, []).append((x.low <= truth <= x.high, x.high - x.low))
        yield {"what": "score", "metric": "macro-f1", "seeds": seeds, "n": n, "truth": round(truth, 4), "sd": sd,
               "of": count,
               **{name: float(np.mean([h for h, _ in x])) for name, x in found.items()},
               "width": float(np.mean([x for _, x in found["coverage"]]))}  # fmt: skip


def coverage_of_differences(rng: np.random.Generator, count: int) -> Iterator[dict[str, Any]]:
    """Of two methods' accuracies; one seed against the difference of these two seeds, several the expected one."""
    for seeds, n, (p, gap), sd in product((1, 3, 5), SIZES, ((0.8, 0.0), (0.8, 0.05), (0.93, 0.03)), SDS):
        held, widths, percentiles = [], [], []
        for y, own in answers(rng, count, (p + gap, p), seeds, n, sd):
            d = y[:, 0] - y[:, 1]
            _, low, high = between(d, 1.0, 0.95)
            truth = own[:, 0, 0] - own[:, 1, 0] if seeds == 1 else gap
            held.append(holds(low, high, truth))
            widths.append(high - low)
            if seeds == 1:
                share = np.stack([(d[:, 0] == x).mean(axis=-1) for x in (1, -1, 0)], axis=-1)
                draws = rng.multinomial(n, share, size=(300, len(d)))
                ends = np.quantile((draws[..., 0] - draws[..., 1]) / n, [0.025, 0.975], axis=0)
                percentiles.append(holds(ends[0], ends[1], truth))
        record = {"what": "difference", "metric": "accuracy", "seeds": seeds, "n": n, "truth": gap, "p": p, "sd": sd,
                  "of": count, "coverage": float(np.concatenate(held).mean()),
                  "width": float(np.concatenate(widths).mean())}  # fmt: skip
        yield record | ({"percentile": float(np.concatenate(percentiles).mean())} if seeds == 1 else {})


def called_worse(y: Floats) -> NDArray[np.bool_]:
    """(R, k) which methods of R leaderboards y (R, k, S, N) `crossed.against_best` calls worse than the best."""
    rows, k = y.shape[:2]
    ps = np.ones((rows, k, k))
    pairs = list(combinations(range(k), 2))
    found = np.stack([p_value(y[:, i] - y[:, j], 1.0) for i, j in pairs], axis=1)
    for row, p in zip(ps, found, strict=True):
        for (i, j), adjusted in zip(pairs, holm(p), strict=True):
            row[i, j] = row[j, i] = adjusted
    means = y.mean(axis=(2, 3))
    best = means.argmax(axis=1)
    return np.asarray((ps[np.arange(rows), best] <= 0.05) & (means < means.max(axis=1, keepdims=True)))


def leaderboards(rng: np.random.Generator, count: int) -> Iterator[dict[str, Any]]:
    """How often any of equally good methods is called worse; and, of one that is better by 0.03 or 0.05, which share
    of the others is."""
    for gain, k, seeds, n, sd in product((0.0, 0.03, 0.05), (2, 5, 10), (1, 3, 5), SIZES, SDS):
        if seeds == 1 and sd:
            continue  # one seed says nothing of others
        if gain and sd == 0.05:
            continue
        wrong = []
        for y, _ in answers(rng, count // (4 if gain else 1), (0.8 + gain, *[0.8] * (k - 1)), seeds, n, sd):
            worse = called_worse(y)
            wrong.append(worse[:, 1:].mean(axis=1) * ~worse[:, 0] if gain else worse.any(axis=1))
        yield {"what": "power" if gain else "error", "k": k, "seeds": seeds, "n": n, "gain": gain, "sd": sd,
               "of": len(np.concatenate(wrong)), "share": float(np.concatenate(wrong).mean())}  # fmt: skip


# --- tables


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def grid(records: list[dict[str, Any]], rows: tuple[str, ...], columns: tuple[str, ...], cell: str) -> list[str]:
    """A table of one number, rows and columns by what they name."""
    heads = list(dict.fromkeys(tuple(r[c] for c in columns) for r in records))
    sides = list(dict.fromkeys(tuple(r[c] for c in rows) for r in records))
    values = {(tuple(r[c] for c in rows), tuple(r[c] for c in columns)): r.get(cell) for r in records}
    named = [", ".join(f"{c} {v:g}" for c, v in zip(columns, head, strict=True)) for head in heads]
    out = ["| " + " | ".join((*rows, *named)) + " |", "|" + "---|" * (len(rows) + len(heads))]
    for side in sides:
        cells = [percent(values.get((side, head))) for head in heads]
        out.append("| " + " | ".join([*(f"{v:g}" for v in side), *cells]) + " |")
    return out


def tables(records: list[dict[str, Any]]) -> str:
    def of(**wanted: Any) -> list[dict[str, Any]]:
        return [r for r in records if all(r.get(k) == v for k, v in wanted.items())]

    def error(chosen: list[dict[str, Any]], share: float) -> str:
        return f"{100 * np.sqrt(share * (1 - share) / chosen[0]['of']):.1f}"

    scores, f1s = of(what="score", metric="accuracy"), of(what="score", metric="macro-f1")
    differences, wrong = of(what="difference"), of(what="error")
    side = ("seeds", "n", "truth")
    # accuracies of seeds, drawn: 0.6, 0.8 and 0.95 are multiples of 1 / N, where percentiles happen to hold them
    one = [r for r in scores if r["seeds"] == 1 and r["sd"] == 0.02]
    both = [{**r, "cell": r[name], "rule": rule} for r in one for rule, name in ((0, "percentile"), (1, "coverage"))]
    lines = [f"Coverage of 95 % intervals of accuracy, in % (Monte Carlo error {error(scores, 0.95)}), by the sd of "
             "seeds. One seed: of that seed's own accuracy.", "",
             *grid(scores, side, ("sd",), "coverage"), ""]  # fmt: skip
    lines += ["One seed, percentiles of resamples (rule 0) against Wilson's interval (rule 1):", "",
              *grid(both, ("n", "truth"), ("rule",), "cell"), ""]  # fmt: skip
    named = {"percentile": 0, "bootstrap": 1, "coverage": 2}
    f1_one = [{**r, "cell": r[name], "rule": rule} for r in f1s if r["seeds"] == 1 for name, rule in named.items()]
    lines += [f"macro-f1 (error {error(f1s, 0.95)}), one seed: percentiles (0), `bootstrap` (1), `over_seeds` (2):", "",
              *grid(f1_one, ("n", "truth"), ("rule",), "cell"), "", "macro-f1, three seeds:", "",
              *grid([{**r, "truth": round(r["truth"], 2)} for r in f1s if r["seeds"] == 3], ("n", "truth"), ("sd",),
                    "coverage"), ""]  # fmt: skip
    lines += [f"Coverage of 95 % intervals of a difference, in % (error {error(differences, 0.95)}):", "",
              *grid(differences, ("seeds", "n", "p", "truth"), ("sd",), "coverage"), ""]  # fmt: skip
    pairs = [r for r in differences if r["seeds"] == 1 and r["sd"] == 0.02]
    both = [{**r, "cell": r[name], "rule": rule} for r in pairs for rule, name in ((0, "percentile"), (1, "coverage"))]
    lines += ["One seed, percentiles (0) against `paired` (1):", "",
              *grid(both, ("n", "p", "truth"), ("rule",), "cell"), ""]  # fmt: skip
    lines += [f"Leaderboards of k equally good methods in which any is called worse, in % (error {error(wrong, 0.05)})"
              ":", "", *grid(wrong, ("k", "seeds", "n"), ("sd",), "share"), ""]  # fmt: skip
    lines += ["One method is better: share of the others that are called worse than it, in %:", "",
              *grid(of(what="power"), ("k", "seeds", "n"), ("gain", "sd"), "share")]  # fmt: skip
    return "\n".join(lines)


def page(records: list[dict[str, Any]]) -> str:
    """docs/intervals.md."""
    accuracy = [r for r in records if r["what"] == "score" and r["metric"] == "accuracy"]
    within = {s: [0.93 <= r["coverage"] <= 0.97 for r in accuracy if r["seeds"] == s] for s in (1, 3, 5)}
    said = ", ".join(f"{sum(v)} of {len(v)} with {s} seed{'s' * (s > 1)}" for s, v in within.items())
    low, high = min(r["coverage"] for r in accuracy), max(r["coverage"] for r in accuracy)
    wrong = max(r["share"] for r in records if r["what"] == "error")
    return f"""# Do the intervals hold what they say?

Simulated leaderboards whose truth is known: `python -m reference.prove_intervals`, which also says how answers are
drawn. Generated by it: do not edit.

The 95 % interval of an accuracy holds the truth 93 to 97 % of the time in {said} settings;
over all {len(accuracy)} in {100 * low:.1f} to {100 * high:.1f} %. With three seeds it is too wide where seeds matter
little: three numbers cannot show that a variance is zero. With five seeds it is too narrow where accuracies near 1
differ much between seeds. Equally good methods are called worse than one another on at most {100 * wrong:.1f} % of
leaderboards.

{tables(records)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    parser.add_argument("--repetitions", type=int, default=2000, help="for accuracy; fewer for what is slower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    count = given.repetitions // (10 if given.quick else 1)
    rng, records, began = np.random.default_rng(given.seed), [], time.monotonic()
    parts = ((coverage, count), (coverage_of_differences, count), (leaderboards, count // 2), (coverage_f1, count // 8))
    for part, repetitions in parts:
        records += list(part(rng, max(2, repetitions)))
        print(f"{part.__name__}: {time.monotonic() - began:.0f} s", flush=True)
    given.out.write_text("\n".join(json.dumps(r) for r in records) + "\n", encoding="utf-8")
    if given.out == RESULTS:
        RESULTS.with_suffix(".md").write_text(page(records), encoding="utf-8")
    print(tables(records))


if __name__ == "__main__":
    main()
