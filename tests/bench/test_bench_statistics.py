import numpy as np
import pytest

from umm_bench.bench.statistics import mean_interval, paired_effect


def grouped(spread: float, noise: float, subjects: int = 8, each: int = 6) -> tuple[list[float], list[str]]:
    random = np.random.default_rng(0)
    values = random.normal(0, spread, subjects)[:, None] + random.normal(0, noise, (subjects, each))
    names = np.repeat([f"s{number}" for number in range(subjects)], each)
    return list(values.ravel()), list(names)


def test_the_interval_contains_the_mean():
    values, names = grouped(1.0, 0.5)
    interval = mean_interval(values, names)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.low < interval.mean < interval.high
    assert (interval.samples, interval.clusters) == (48, 8)


def test_clusters_widen_the_interval_exactly_when_subjects_differ():
    def ratio(spread: float) -> float:
        values, names = grouped(spread, 0.5, subjects=80)
        clustered = mean_interval(values, names)
        naive = mean_interval(values, [str(number) for number in range(len(values))])
        return (clustered.high - clustered.low) / (naive.high - naive.low)

    assert ratio(2.0) > 1.8
    assert 0.75 < ratio(0.0) < 1.25


def test_the_interval_is_about_as_wide_as_theory_says():
    values, names = grouped(1.0, 0.0, subjects=100, each=2)
    interval = mean_interval(values, names)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.std(values) / 10, rel=0.1)


def test_one_subject_has_no_interval():
    interval = mean_interval([1.0, 2.0], ["a", "a"])
    assert (interval.mean, interval.low, interval.high) == (1.5, None, None)


def test_pairing_removes_what_subjects_share():
    values, names = grouped(5.0, 0.1)
    theirs = {(name, f"p{number}", 0): value for number, (name, value) in enumerate(zip(names, values, strict=True))}
    ours = {key: value + 0.3 for key, value in theirs.items()}
    ours["s0", "only ours", 0] = 1000.0
    effect = paired_effect(ours, theirs)
    assert effect.mean == pytest.approx(0.3) and effect.samples == 48
    assert effect.high - effect.low < 1e-9
    assert paired_effect({("a", "p", 0): 1.0}, {("b", "p", 0): 1.0}) is None


def test_no_values_are_an_error():
    with pytest.raises(ValueError):
        mean_interval([], [])
