"""Photographs of DreamBench, alone and in pairs, through every stage, on small random weights of SD 1.5's shape."""

from pathlib import Path

import duckdb
import pytest

from tests.conftest import make_image_encoder, make_sd
from tests.umm.conftest import make_umm
from umm_bench import run

DREAMBENCH = Path(__file__).parents[3] / "shared" / "data" / "dreambench"
METHODS = ("sd", "textual_inversion", "dreambooth", "umm")


@pytest.mark.skipif(not DREAMBENCH.is_dir(), reason="no copy of DreamBench beside the project")
def test_photographs_alone_and_in_pairs(tmp_path, capsys):
    base, reports = tmp_path / "base", tmp_path / "reports"
    make_umm(make_sd(), make_image_encoder()).save_pretrained(base)
    few = ["dreambooth.steps=2", "dreambooth.num_class_images=2", "dreambooth.class_inference_steps=2",
           "textual_inversion.steps=2", "dreambooth.identifiers=fox,blue"]  # fmt: skip
    command = [
        *("--methods", ",".join(METHODS), "--suite", "dreambench", "--suite-path", str(DREAMBENCH)),
        *("--subjects", "4", "--pairs", "2", "--prompts", "1", "--steps", "2", "--base", str(base)),
        *("--output", str(reports), *(word for setting in few for word in ("--set", setting))),
    ]
    assert run.main(command) == 0, capsys.readouterr().err
    with duckdb.connect(str(reports / "umm_bench.duckdb"), read_only=True) as store:
        drawn = store.sql("select method, subject_count, count(*) from samples group by all order by all").fetchall()
        assert drawn == sorted((method, subjects, n) for method in METHODS for subjects, n in ((1, 4), (2, 2)))
        assert store.sql("from undrawn").fetchall() == [] and store.sql("from unscored").fetchall() == []
        scored = store.sql("select distinct metric from results").fetchall()
        wanted = {"clip_t", "clip_i", "dino", "gallery_rank", "prior_cosine", "several"}
        assert wanted <= {metric for (metric,) in scored}
        labels = store.sql("select count(*) from results where metric = 'several'").fetchall()
        assert labels == [(2 * 2 * len(METHODS),)]  # each subject of each pair has one
        ceilings = store.sql("select metric, count(*) from ceilings group by all").fetchall()
        assert dict(ceilings)["dino"] >= 4
        floors = store.sql("select count(*) from summaries where floor is null and metric = 'dino'").fetchall()
        assert floors == [(0,)]
    assert (reports / "umm_bench.duckdb").is_file() and list(reports.glob("run-*/index.html"))
