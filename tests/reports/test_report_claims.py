"""The claims: their verdicts follow from effect and interval, and what was not measured is said to be so."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reports.data import Reader, open_store
from reports.findings.claims import FEWEST_CASES, Claim, read_claims
from reports.findings.rare import read_rare
from reports.render import render_run
from tests.reports.test_render_run import Page
from tests.reports.test_report_rare import add_rarity
from tests.reports.test_report_several import GIVEN, add_pairs
from umm_bench.bench.statistics import Interval


@pytest.fixture(scope="module")
def full(finished, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("claimed")
    shutil.copytree(finished.store.parent, folder, dirs_exist_ok=True)
    add_pairs(folder, finished.run_id)
    add_rarity(folder / finished.store.name, finished.run_id)
    return replace(finished, store=folder / finished.store.name)


def claims_of(run) -> dict[str, Claim]:
    with open_store(run.store) as connection:
        reader = Reader(connection, run.store.parent, run.run_id)
        report = reader.report()
        return {claim.key: claim for claim in read_claims(report, read_rare(reader, report.samples))}


def claim(*interval) -> Claim:
    effect = Interval(*interval, 20, FEWEST_CASES) if interval else None
    return Claim("key", "sentence", "measurement", effect, "index.html", "needs")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.2, 0.1, 0.3), "supported"),
        ((-0.2, -0.3, -0.1), "contradicted"),
        ((0.2, -0.1, 0.5), "undecided"),
        ((0.2, 0.0, 0.5), "undecided"),
        ((0.2, None, None), "undecided"),
        ((), "not measured"),
    ],
)
def test_the_verdict_follows_from_the_interval(interval, verdict: str) -> None:
    assert claim(*interval).verdict == verdict


def test_few_cases_decide_nothing() -> None:
    effect = Interval(0.2, 0.1, 0.3, 20, FEWEST_CASES - 1)
    assert replace(claim(), effect=effect).verdict == "undecided"


def test_the_smallest_detectable_effect_grows_with_the_interval() -> None:
    assert claim(0.5, 0.402, 0.598).detectable == pytest.approx(2.8 * 0.05)  # a standard error of 0.05
    assert claim(0.0, 0.0, 0.0).detectable is None and claim().detectable is None


def test_keeping_the_subject_is_measured_against_plain_sd_in_pairs(full) -> None:
    found = claims_of(full)
    assert found["kept"].effect is None  # the seeds of the two methods differ here: nothing is paired
    assert found["mlp"].verdict == found["closest"].verdict == "not measured"


def test_paired_samples_give_the_difference_of_their_means(full, tmp_path: Path) -> None:
    import duckdb

    shutil.copytree(full.store.parent, tmp_path / "store")
    run = replace(full, store=tmp_path / "store" / full.store.name)
    with duckdb.connect(str(run.store)) as connection:
        connection.execute("update samples set seed = 5")
        query = "select method, avg(value) from run_results where metric = ? and subject_count = 1 group by all"
        identity, dino = (dict(connection.execute(query, [metric]).fetchall()) for metric in ("identity", "dino"))
    found = claims_of(run)
    assert found["kept"].effect.mean == pytest.approx(identity["umm"] - identity["sd"])
    assert (found["kept"].effect.samples, found["kept"].effect.clusters) == (4, 2)
    assert found["style"].effect.samples == 2  # one styled prompt of two, for each subject
    assert found["style"].effect.mean == pytest.approx(dino["umm"] - dino["sd"])


def test_mixing_counts_the_labels_that_have_something_of_the_other(full) -> None:
    mixed = sum(label in ("blending", "dominance", "swap") for label in GIVEN["umm"]) / len(GIVEN["umm"])
    effect = claims_of(full)["mixing"].effect
    assert effect.mean == pytest.approx(mixed - 0.05) and effect.clusters == 3


def test_rarity_is_the_slope_of_the_store(full) -> None:
    found = claims_of(full)["rare"]
    assert (found.effect.mean, found.effect.low, found.effect.high) == (0.12, 0.03, 0.2)
    assert "DINO" in found.measurement and found.verdict == "undecided"  # of two subjects


def test_each_claim_is_on_the_page_with_its_verdict_and_its_evidence(full, tmp_path: Path) -> None:
    found, index = claims_of(full), render_run(full.store, full.run_id, tmp_path)
    page = Page(index.with_name("claims.html"))
    assert {row["id"]: row["data-verdict"] for row in page.all("article")} == {
        key: each.verdict for key, each in found.items()
    }
    for each in found.values():
        assert each.sentence in page.text and each.measurement in page.text
        target, _, part = each.link.partition("#")
        there = Page(index.with_name(target))
        assert each.effect is None or not part or any(row.get("id") == part for _, row in there.tags), each.link
        assert bool(page.all("a", href=each.link)) or each.effect is None
