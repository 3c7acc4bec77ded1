import numpy as np
import pytest
from scipy import stats

from umm_bench.bench.judging.ranks import rank_methods
from umm_bench.bench.judging.trainings import spread
from umm_bench.bench.statistics import detectable, holm, jackknife_interval, mean_interval, paired_effect


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


def test_of_as_many_images_each_it_is_students_interval_of_the_subjects_means():
    values, names = grouped(1.0, 0.5, subjects=7)
    means = np.reshape(values, (7, -1)).mean(axis=1)
    low, high = stats.t.interval(0.95, 6, means.mean(), stats.sem(means))
    found = mean_interval(values, names)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_of_pairs_without_a_common_subject_it_is_about_students_interval_of_the_pairs():
    values, names = grouped(1.0, 0.5, subjects=12)
    both = [(f"{name}-a", f"{name}-b") for name in names]
    alone, together = mean_interval(values, names), mean_interval(values, both)
    assert together.clusters == 12
    assert 1 <= (together.high - together.low) / (alone.high - alone.low) <= (12 / 11) ** 0.5 + 1e-9


def test_a_subject_in_every_pair_leaves_no_interval():
    assert mean_interval([1.0, 2.0, 4.0], [("a", "b"), ("a", "c"), ("a", "d")]).low is None
    assert mean_interval([1.0, 2.0, 4.0], [("a", "b"), ("c", "d"), ("a", "d")]).low is not None


def coverage(simulate, number: int = 1000) -> float:
    """How often the interval has the truth in it, which is 0."""
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(number):
        found = mean_interval(*simulate(random))
        inside += found.low <= 0 <= found.high
    return inside / number


@pytest.mark.parametrize("subjects", [4, 10, 30])
def test_intervals_cover_as_often_as_they_say(subjects):
    """Uneven numbers of images, and subjects that differ more than images do."""

    def simulate(random):
        each = random.integers(4, 9, subjects)
        names = np.repeat(np.arange(subjects), each)
        values = random.normal(0, 1, subjects)[names] + random.normal(0, 0.5, each.sum())
        return list(values), [str(name) for name in names]

    assert 0.925 <= coverage(simulate) <= 0.98


def test_images_counted_as_if_each_were_a_subject_cover_far_less():
    def simulate(random):
        values = np.repeat(random.normal(0, 1, 10), 6) + random.normal(0, 0.5, 60)
        return list(values), [str(number) for number in range(60)]

    assert coverage(simulate, 400) < 0.7


@pytest.mark.parametrize("subjects", [5, 8])
def test_intervals_over_pairs_that_share_their_subjects_cover_at_least_as_often(subjects):
    """What a pair scores has a part of each of its subjects. Taking pairs for independent covers less."""
    pairs = [(a, b) for a in range(subjects) for b in range(a)]

    def simulate(random):
        own = random.normal(0, 1, subjects)
        values = [own[a] + own[b] + random.normal(0, 0.3) for a, b in pairs]
        return values, [(str(a), str(b)) for a, b in pairs]

    def naive(random):
        values, both = simulate(random)
        return values, ["+".join(each) for each in both]

    assert 0.93 <= coverage(simulate, 800) <= 0.999
    assert coverage(naive, 400) < 0.9


def test_what_is_no_mean_has_the_same_interval_where_it_is_one():
    values, names = grouped(1.0, 0.5, subjects=6)
    one, other = jackknife_interval(values, names, lambda some: float(np.mean(some))), mean_interval(values, names)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))
    assert jackknife_interval(values[:12], names[:12], lambda some: float(np.mean(some))).low is None


def test_holm_corrects_for_the_family():
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([None]) == [None]


@pytest.mark.parametrize("cases", [4, 12, 30])
def test_the_smallest_detectable_difference_is_found_eight_times_in_ten(cases):
    values = np.random.default_rng(2).normal(detectable(cases), 1, (4000, cases))
    assert 0.78 <= (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05).mean() <= 0.82
    assert detectable(1) is None and detectable(60) < detectable(30)


def scored(means: dict[str, dict[str, float]]) -> dict[str, dict[tuple, float]]:
    """By method, from what it scores of each subject, two prompts a subject."""
    return {
        method: {(subject, prompt, 0): value for subject, value in of.items() for prompt in ("p", "q")}
        for method, of in means.items()
    }


def test_ranks_and_what_one_subject_changes_of_them():
    rows = rank_methods(
        scored(
            {
                "a": {"fox": 0.9, "owl": 0.9, "cup": 0.1, "hat": 0.5},
                "b": {"fox": 0.5, "owl": 0.5, "cup": 0.5, "hat": 0.5},
                "c": {"fox": 0.1, "owl": 0.1, "cup": 0.05, "hat": 0.1},
            }
        )
    )
    assert [(row.method, row.rank) for row in rows] == [("a", 1), ("b", 2), ("c", 3)]
    a, b, c = rows
    assert a.win_rate == pytest.approx((2 + 0.5 + 4) / 8) and a.pairs == 16
    assert sum(row.strength for row in rows) == pytest.approx(1)
    assert (a.best, a.worst) == (1, 1) and (c.best, c.worst) == (3, 3)
    assert (b.best, b.worst) == (1, 2)  # without the fox, or the owl, it is as good as a


def test_a_method_that_always_wins_is_first_and_lower_may_be_better():
    scores = scored({"a": {"fox": 2.0, "owl": 3.0}, "b": {"fox": 1.0, "owl": 1.0}, "c": {"fox": 1.5, "owl": 0.5}})
    assert next(row.method for row in rank_methods(scores)) == "a"
    assert [row.method for row in rank_methods(scores, lower_is_better=True)][-1] == "a"
    assert rank_methods(scored({"a": {"fox": 1.0}})) == []
    tied = rank_methods(scored({"a": {"fox": 1.0, "owl": 1.0}, "b": {"fox": 1.0, "owl": 1.0}}))
    assert [(row.rank, row.win_rate) for row in tied] == [(1, 0.5), (1, 0.5)]


def test_a_subject_of_pairs_is_left_out_with_all_of_its_pairs():
    keys = [("a", "b"), ("a", "c"), ("b", "c")]
    wins = {("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "c"): 0.0}
    ours = {(key, "p", 0): wins[key] for key in keys}
    rows = rank_methods({"x": ours, "y": {key: 0.5 for key in ours}})
    assert [(row.method, row.rank, row.best, row.worst) for row in rows] == [("x", 1, 1, 2), ("y", 2, 1, 2)]


def test_what_a_training_changes_is_kept_apart_from_the_noise_of_images():
    random = np.random.default_rng(3)

    def trained(shifts) -> list[dict]:
        images = random.normal(0, 1, 200)
        return [
            {(str(i), "p", 0): value for i, value in enumerate(images + shift + random.normal(0, 0.8, 200))}
            for shift in shifts
        ]

    shifts = random.normal(0, 0.5, 12)
    none, some = spread(trained(np.zeros(12))), spread(trained(shifts))
    assert none.between_sd < 0.06 and some.between_sd == pytest.approx(shifts.std(ddof=1), rel=0.2)
    assert none.sampling_sd == pytest.approx(0.8 / 200**0.5, rel=0.15) and some.trainings == 12
    assert spread(trained([0.5])) is None


def test_two_cases_have_a_mean_and_no_interval():
    two, three = mean_interval([0.0, 1.0], ["a", "b"]), mean_interval([0.0, 1.0, 1.0], ["a", "b", "c"])
    assert (two.mean, two.low, two.high, two.p, two.clusters) == (0.5, None, None, None, 2)
    assert three.low is not None and three.high is not None and three.low < three.mean < three.high
