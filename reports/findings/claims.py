"""What the paper and its readers claim of UMM, and what a run says to each: supported, contradicted or undecided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reports.data import Report, Sample
from reports.findings.rare import Rare
from reports.words import title_of
from umm_bench.bench.selection import FLOOR
from umm_bench.bench.statistics import Interval, mean_interval, paired_effect

UMM = "umm"
MIXED = ("blending", "dominance", "swap")
SOME = 0.05  # of the subjects, from which on they are said to mix
POWER = (1.96 + 0.84) / 1.96  # half an interval times this would be found in four of five such runs
FEWEST_CASES = 6  # of fewer, all could lie on one side by chance (one in sixteen of five)
SUPPORTED, CONTRADICTED, UNDECIDED, MISSING = "supported", "contradicted", "undecided", "not measured"


@dataclass(frozen=True)
class Claim:
    """`effect` is above zero where the claim holds; None where the run did not measure it, and `needs` says how to."""

    key: str
    sentence: str
    measurement: str
    effect: Interval | None
    link: str
    needs: str

    @property
    def detectable(self) -> float | None:
        """The smallest effect that such a run would find four times in five."""
        if self.effect is None or self.effect.low is None or self.effect.high is None:
            return None
        if self.effect.low == self.effect.high:  # all cases are alike, which says nothing of others
            return None
        return POWER * (self.effect.high - self.effect.low) / 2

    @property
    def verdict(self) -> str:
        if self.effect is None:
            return MISSING
        if self.effect.low is None or self.effect.high is None or self.effect.clusters < FEWEST_CASES:
            return UNDECIDED
        return SUPPORTED if self.effect.low > 0 else CONTRADICTED if self.effect.high < 0 else UNDECIDED


def read_claims(report: Report, rare: Rare) -> list[Claim]:
    several = {drawn.key for drawn in report.several.pictures}
    single = [sample for sample in report.samples if sample.key not in several]
    fidelity = next((metric for metric in ("identity", "dino", "clip_i") if metric in report.metrics), "dino")
    # Identity is too coarse for a part of the prompts.
    fine = next((metric for metric in ("dino", "clip_i") if metric in report.metrics), fidelity)
    styled = [sample for sample in single if "style" in sample.prompt_kind]
    slope, over = _slope(rare)
    return [
        _closest(report, single),
        Claim(
            "kept",
            "UMM keeps the subject without any fine-tuning.",
            f"{title_of(fidelity)} of UMM minus that of plain SD, which does not see the subject",
            _effect(single, FLOOR, fidelity),
            "index.html#differences" if report.comparisons else "index.html#leaderboard",
            "--methods sd,umm",
        ),
        Claim(
            "style",
            "UMM draws the subject in a style that the words ask for.",
            f"{title_of(fine)} of UMM minus that of plain SD, on prompts that ask for a style",
            _effect(styled, FLOOR, fine),
            "index.html#images",
            "--methods sd,umm and a suite with prompts of a style",
        ),
        Claim(
            "mixing",
            f"Several subjects blend: in pictures of several, more than {SOME:.0%} of UMM's subjects have something of"
            " another.",
            f"share of UMM's subjects labelled {', '.join(MIXED)}, minus {SOME:.0%}",
            _mixing(report),
            "several.html#rates" if report.several.labelled else "several.html",
            "--pairs 4, and --metrics several where the suite has no ground truth",
        ),
        Claim(
            "rare",
            "Rare subjects fail: UMM keeps a subject the better, the more often its class was seen.",
            f"slope of UMM's {title_of(over)} over log10 of the count",
            slope,
            "rare.html#fits" if rare.fits else "rare.html",
            "counts of the classes, and subjects of at least a few different counts",
        ),
        Claim(
            "mlp",
            "An MLP is enough to map an image's embedding into the text encoder's space.",
            "UMM with the MLP minus UMM with a larger mapping, trained alike",
            None,
            "index.html",
            "a second training with a larger mapping; a run of the bench has one UMM",
        ),
        Claim(
            "quality",
            "Fine-tuning inherits the quality of poor references, UMM does not.",
            "loss of a fine-tuned method by degraded references, minus that of UMM",
            None,
            "index.html",
            "two runs, one of them with --degrade, held against each other",
        ),
        Claim(
            "detail",
            "A detail inside the subject can hardly be edited by words.",
            "share of prompts for a changed detail that are not followed",
            None,
            "index.html",
            "prompts that change a part of the subject, and a check of that part",
        ),
    ]


def _closest(report: Report, single: Iterable[Sample]) -> Claim:
    """Against the method that comes nearest to UMM or before it."""
    samples, metric = list(single), "prior_cosine"
    sign = -1 if metric in report.lower_is_better else 1
    effects = {
        method: effect
        for method in report.methods
        if method not in (UMM, FLOOR) and (effect := _effect(samples, method, metric)) is not None
    }
    nearest = min(effects, key=lambda method: sign * effects[method].mean) if effects else None
    return Claim(
        "closest",
        "UMM leaves plain SD's own way of drawing more intact than fine-tuning does.",
        f"likeness to plain SD's own pictures ({metric}), UMM minus {nearest or 'the best of the fine-tuned'}",
        _turned(effects[nearest], sign) if nearest else None,
        "index.html#leaderboard",
        "--methods with UMM and a fine-tuned one, and --metrics prior_cosine",
    )


def _effect(samples: Iterable[Sample], reference: str, metric: str) -> Interval | None:
    """UMM minus a reference, paired by subject, prompt and noise."""

    def of(method: str) -> dict[tuple[str, str, int], float]:
        chosen = (sample for sample in known if sample.method == method and metric in sample.scores)
        return {(sample.subject, sample.prompt_id, sample.seed): sample.scores[metric] for sample in chosen}

    known = list(samples)
    return paired_effect(of(UMM), of(reference))


def _turned(interval: Interval, sign: int) -> Interval:
    if sign == 1:
        return interval
    low, high = (None if value is None else -value for value in (interval.high, interval.low))
    return Interval(-interval.mean, low, high, interval.samples, interval.clusters)


def _mixing(report: Report) -> Interval | None:
    chosen = [(drawn, each) for drawn, each in report.several.labelled if drawn.method == UMM]
    if not chosen:
        return None
    values = [float(each.label in MIXED) - SOME for _, each in chosen]
    return mean_interval(values, [drawn.case_id for drawn, _ in chosen])


def _slope(rare: Rare) -> tuple[Interval | None, str]:
    fits = {fit.metric: fit for fit in rare.fits if (fit.method, fit.axis) == (UMM, "count")}
    for metric in ("identity", "dino", *sorted(fits)):
        if metric in fits:
            fit = fits[metric]
            return Interval(fit.slope, fit.low, fit.high, fit.subjects, fit.subjects), metric
    return None, "fidelity"
