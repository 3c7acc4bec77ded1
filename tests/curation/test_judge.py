from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from curation import judge
from curation.config import BuildConfig

CONFIG = BuildConfig()
CAPTIONS = Path(__file__).parents[3] / "shared" / "data" / "laion" / "laion400m-10k.parquet"
ROWS = judge.read_judged()


def test_every_phrase_of_the_judged_captions_is_judged(extractor):
    judged = judge.score(ROWS, extractor, CONFIG)
    assert judged.unjudged == 0, "the extraction has changed: judge again (python -m curation.judge --sample)"
    assert len(ROWS) == judge.SAMPLE and judged.phrases == sum(len(row["phrases"]) for row in ROWS)
    # Fair marks: a phrase that is no thing is in the file as such, and so is what was missed.
    assert 0.6 < judged.visual / judged.phrases < 1 and 0.6 < judged.bounded / judged.phrases < 1
    assert 0.5 < judged.recall < 1


def test_the_judged_spans_are_in_their_captions():
    for row in ROWS:
        for phrase in row["phrases"]:
            assert row["caption"][phrase["start"] : phrase["end"]] == phrase["text"]
        assert all(missed in row["caption"] for missed in row["missed"])


def test_a_changed_extraction_is_told(extractor, tmp_path: Path, monkeypatch, capsys):
    changed = replace(CONFIG, max_phrases=1)
    fewer = judge.score(ROWS, type(extractor)(changed), changed)
    assert fewer.unjudged == 0 and fewer.recall < judge.score(ROWS, extractor, CONFIG).recall
    row = {"row": 0, "caption": "a fox and a dog", "refused": None, "phrases": [], "missed": []}
    known = {"text": "a fox", "start": 0, "end": 5, "visual": True, "bounded": True}
    (tmp_path / "judged").write_text(f"{{}}\n{json.dumps(row | {'phrases': [known]})}\n")
    judged = judge.score(judge.read_judged(tmp_path / "judged"), extractor, CONFIG)
    assert (judged.phrases, judged.unjudged, judged.both) == (2, 1, 1)


@pytest.mark.skipif(not CAPTIONS.is_file(), reason=f"no real captions at ../shared/data/laion/{CAPTIONS.name}")
def test_the_judged_captions_are_the_drawn_ones(extractor, capsys):
    judge.print_sample(judge.read_captions(CAPTIONS), extractor, CONFIG)
    drawn = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["row"], row["caption"]) for row in drawn] == [(row["row"], row["caption"]) for row in ROWS]


def test_the_shares_need_no_list_of_captions_and_a_sample_does(capsys):
    assert judge.main(["--json"]) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert "phrases.recall" in names and "phrases.captions_per_second" not in names
    assert judge.main(["--sample"]) == 2
    assert "name a LAION list" in capsys.readouterr().err
