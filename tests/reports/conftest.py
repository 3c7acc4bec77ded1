"""A small finished run in a real store: two subjects, two prompts, three methods, one lost image."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.synthetic_run import make_run
from reports.render import render_run
from tests.reports.judged import judge
from umm_bench.bench.store import Store


@dataclass(frozen=True)
class FinishedRun:
    store: Path
    run_id: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    nasty: str


RUN = "run-0123"
METHODS = ("sd", "umm", "dream<booth>")
NASTY = "<script>alert(1)</script>"
LOST = "umm-fox-p1"
METRICS = ("identity", "dino", "clip_t", "odd")


def value_of(method: str, subject: str, prompt: str, metric: str) -> float:
    place = METHODS.index(method) + 3 * ("fox", "owl").index(subject) + 6 * ("p0", "p1").index(prompt)
    return float(place % 2) if metric == "identity" else round(0.3 + 0.037 * place + 0.01 * len(metric), 4)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("reports")
    random = np.random.default_rng(0)

    def picture(path: Path, size: int = 64) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path)
        return str(path)

    samples, subjects, scores, setups = [], [], [], []
    for method in METHODS:
        for subject in ("fox", "owl"):
            setups.append(
                dict(
                    setup_key=f"{method}-{subject}",
                    method=method,
                    case_id=subject,
                    config_json={},
                    seconds=10.0 + len(method) + len(setups),
                    peak_mb=5.0,
                    path=None,
                )
            )
            for prompt in ("p0", "p1"):
                key = f"{method}-{subject}-{prompt}"
                name = f"samples/{len(samples)}.png"
                if key != LOST:
                    picture(folder / name, 512 if subject == "owl" else 64)
                text = f"a {subject} on {NASTY}" if prompt == "p1" else f"a {subject} & a hat"
                samples.append(
                    dict(
                        sample_key=key,
                        method=method,
                        config_json={},
                        base="mini",
                        suite="mini",
                        case_id=subject,
                        subject_count=1,
                        prompt_id=prompt,
                        prompt_kind="style" if prompt == "p1" else "accessorise",
                        prompt=text,
                        image_index=0,
                        seed=len(samples),
                        path=name,
                        seconds=0.5 + len(samples),
                        peak_mb=100.0,
                        code_version="1",
                    )
                )
                subjects.append(
                    dict(
                        sample_key=key,
                        place=1,
                        subject=subject,
                        class_noun=subject,
                        references_json=[picture(folder / f"{subject}.png"), "gone.png"],
                        held_out_json=[],
                        setup_key=f"{method}-{subject}",
                    )
                )
                for metric in METRICS:
                    value = value_of(method, subject, prompt, metric)
                    explanation = f"{metric} of {NASTY}"
                    scores.append(
                        dict(
                            sample_key=key,
                            metric=metric,
                            protocol=f"{metric}/1: made up",
                            value=value,
                            explanation=explanation,
                            metadata_json={},
                        )
                    )
    with Store(folder) as store:
        row = {"run_id": RUN, "created": datetime(2024, 3, 4, 5, 6), "command": f"run {NASTY}"}
        row |= {"config_json": {"methods": METHODS, "seed": 7}, "code_version": "0.1", "suite": "mini", "base": "mini"}
        store.upsert("runs", [row])
        store.upsert("samples", samples)
        store.upsert("sample_subjects", subjects)
        store.upsert("scores", scores)
        store.upsert("setups", setups)
        store.replace_of_run("run_samples", RUN, [{"sample_key": sample["sample_key"]} for sample in samples])
        protocols = [{"metric": metric, "protocol": f"{metric}/1: made up"} for metric in METRICS]
        store.replace_of_run("run_protocols", RUN, protocols)
        means = store.rows(
            "select method, metric, avg(value) as mean, avg(value) - 0.05 as low, avg(value) + 0.05 as high,"
            " count(*) as samples, 2 as cases, 1 as subject_count from run_results group by all"
        )
        store.replace_of_run("summaries", RUN, means)
        effects = [
            dict(method="umm", reference="sd", metric="dino", effect=0.1, low=0.02, high=0.2, pairs=4),
            dict(method="umm", reference="sd", metric="clip_t", effect=-0.1, low=-0.3, high=0.1, pairs=4),
        ]
        store.replace_of_run("comparisons", RUN, [{**effect, "cases": 2, "subject_count": 1} for effect in effects])
        failure = dict(sample_key=LOST, kind="identity drift", reason=f"prefers {NASTY}", rank=1)
        failure["evidence_json"] = {"best_design": NASTY, "margin": 0.12345, "scores": {"dino": 0.5}}
        store.replace_of_run("failures", RUN, [failure])
    return FinishedRun(store.path, RUN, METHODS, METRICS, NASTY)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first page of a rendered run of 400 made-up samples, which has been judged."""
    folder = tmp_path_factory.mktemp("made-up")
    run_id = make_run(folder, samples=400, side=160)
    judge(folder, run_id)
    return render_run(folder / "umm_bench.duckdb", run_id, folder)
