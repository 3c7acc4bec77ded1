"""The loop at its smallest: a run, what it lacks, pairs of that, a few steps, the same cases again, the paired gain."""

from datetime import datetime

import numpy as np
import pytest
from PIL import Image

from tests.curation.conftest import encoded, row, write_tar
from umm_bench import focus, run
from umm_bench.bench.store import Store
from umm_bench.mini.world import backgrounds, scenes
from umm_bench.suites.mini import MiniSuite


def portraits(concept: str, number: int) -> list[dict[str, bytes]]:
    """Rows that show the concept and say so."""
    rows = []
    for i in range(number):
        canvas = backgrounds.draw("blue", scenes.rng_for("focus", i), 96)
        scenes.paste(canvas, scenes.usual(concept).id, scenes.Placement(0.5, 0.5, 0.6 + 0.03 * i))
        picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
        said = f"{scenes.article(concept)} on a blue background"
        rows.append(row(i, jpg=encoded(picture), json_caption=said))
    return rows


def test_the_loop_reports_the_paired_gain_of_the_rare_cases(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    suite = MiniSuite()
    common = [s for s in suite.subjects() if suite.concept_counts()[s.class_noun] > 100]
    lacking, other = common[0], next(s for s in common if s.class_noun != common[0].class_noun)
    reports = tmp_path / "reports"
    asked = ["--methods", "umm", "--metrics", "dino,identity", "--prompts", "blue", "--steps", "2", "--no-floor"]
    assert run.main([*asked, "--subjects", f"{lacking.id},{other.id}", "--output", str(reports)]) == 0
    with Store(reports) as store:
        (made,) = store.rows("select run_id from runs")
        wanted = {"concept": lacking.class_noun, "count": 1, "reason": "for the test", "rank": 1}
        store.replace_of_run("rarity_focus", made["run_id"], [wanted])
    write_tar(tmp_path / "without" / "00000.tar", portraits(other.class_noun, 1))
    words = ["--output", str(reports), "--folder", str(tmp_path / "none"), "--input", str(tmp_path / "without")]
    assert focus.main(words) == 2
    assert f"no pair of {lacking.class_noun}; name another with --input" in capsys.readouterr().err
    write_tar(tmp_path / "corpus" / "00000.tar", portraits(lacking.class_noun, 6))
    words = ["--output", str(reports), "--folder", str(tmp_path / "loop"), "--input", str(tmp_path / "corpus")]
    assert focus.main([*words, "--steps", "2"]) == 0, capsys.readouterr().err
    with Store(reports) as store:
        rows = store.rows("select * from focus_gains where metric = 'dino'")
        drawn = store.rows("select config_json from samples where config_json like '%tiue%' and method = 'umm'")
    assert [(r["subject"], r["before_run_id"]) for r in rows] == [(lacking.id, made["run_id"])]
    assert rows[0]["run_id"] != made["run_id"] and rows[0]["before"] != rows[0]["after"]
    assert any(str(tmp_path / "loop") in sample["config_json"] for sample in drawn)


def test_gains_are_means_of_differences_of_the_same_case():
    rows = [
        {"metric": "dino", "subject": name, "before": before, "after": after}
        for name, before, after in (("a", 0.1, 0.3), ("b", 0.5, 0.6), ("c", 0.2, 0.2))
    ]
    gain = focus.mean_gains(rows)["dino"]
    assert gain.mean == pytest.approx(0.1) and gain.clusters == 3
    assert (gain.low, gain.high) == (pytest.approx(0.1 - 0.24841, abs=1e-4), pytest.approx(0.1 + 0.24841, abs=1e-4))
    (alone,) = focus.mean_gains(rows[:1]).values()
    assert alone.low is None and alone.high is None


@pytest.mark.parametrize("methods", [["sd"], ["umm"]])
def test_a_run_that_gives_nothing_to_mine_says_so(methods, tmp_path, capsys):
    with Store(tmp_path) as store:
        store.begin_run("run-1", datetime(2026, 1, 1), command="x", suite="mini", config_json={"methods": methods})
        store.finish_run("run-1", "all")
    assert focus.main(["--output", str(tmp_path), "--folder", str(tmp_path / "loop")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("without UMM" if methods == ["sd"] else "nothing to mine") in said


def test_a_rerun_is_not_what_the_next_loop_begins_from(tmp_path):
    with Store(tmp_path) as store:
        assert focus.newest(store) == "latest"
        for day, name in enumerate(("before", "after"), start=1):
            store.begin_run(name, datetime(2026, 1, day), command="x", suite="mini", config_json={"methods": ["umm"]})
        assert focus.newest(store) == "after"
        gain = {"before_run_id": "before", "method": "umm", "metric": "dino", "subject": "a", "before": 0, "after": 1}
        store.replace_of_run("focus_gains", "after", [gain])
        assert focus.newest(store) == "before"
