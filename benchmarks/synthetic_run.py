"""A finished run that nobody drew: a store of any size with pictures, scores, labels and rarity, for pages to show."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from umm_bench.bench.failures import LABEL_KINDS, find_failures
from umm_bench.bench.statistics import PairKey, mean_interval, paired_effect
from umm_bench.bench.store import Store

RUN = "run-made-up"
METHODS = ("sd", "dreambooth@100", "dreambooth@200", "umm")
METRICS = ("identity", "dino", "clip_i", "clip_t", "several")
CLASSES = ("fox", "owl", "teapot", "boot", "candle", "clock", "vase", "backpack")
STRATA = ("look, frequent", "look, rare", "drawing, frequent", "drawing, never seen")
KINDS = {
    "recontextualise": "a {} on the beach",
    "accessorise": "a {} with a hat",
    "property": "a shiny {}",
    "style": "a {} in the style of a woodcut",
}
HOSTILE = "</script><img src=x onerror=alert(1)>"
DRAWINGS = 64  # different pictures; the files of a large run share their content


def make_run(folder: Path, samples: int = 10_000, side: int = 512) -> str:
    """A store in `folder` with one run of about `samples` pictures of `side` pixels, a fifth of them of two subjects;
    returns the run's id. The first prompt holds markup, one picture is lost, and one was never drawn.
    """
    random = np.random.default_rng(0)
    rows = _rows(samples, side, random)
    _draw(folder, rows, side)
    with Store(folder) as store:
        config = {"methods": METHODS, "seed": 0, "generation": {"num_inference_steps": 25, "guidance_scale": 5.0}}
        run = {
            "run_id": RUN,
            "created": datetime(2026, 1, 2),
            "executed": datetime(2026, 1, 2),
            "command": "none: made up",
        }
        run |= {
            "config_json": config,
            "code_version": "0",
            "suite": "made up",
            "base": "none",
            "finished_inputs": "all",
        }
        store.upsert("runs", [run])
        for table, content in rows.items():
            store.connection.register("made_up", pd.DataFrame(content))
            store.connection.execute(f"insert into {table} by name select * from made_up")
        protocols = [{"metric": metric, "protocol": f"{metric}/1: made up"} for metric in METRICS]
        store.replace_of_run("run_protocols", RUN, protocols)
        results = store.rows("select * from run_results where run_id = ?", [RUN])
        store.replace_of_run("failures", RUN, find_failures(results))
        _conclude(store, results)
    return RUN


def _rows(samples: int, side: int, random: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
    each = max(1, samples // len(METHODS))  # rows of the gallery
    long = {3: "-of-a-length-that-people-give-to-names-when-they-number-their-folders"}
    subjects = [f"{CLASSES[n % len(CLASSES)]}-{n}{long.get(n, '')}" for n in range(max(4, min(50, each // 8)))]
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("samples", "sample_subjects", "scores", "run_samples", "rarity", "setups", "undrawn")
    }
    for n, subject in enumerate(subjects):
        noun, stratum = subject.split("-")[0], STRATA[n % len(STRATA)]
        about = dict(run_id=RUN, subject=subject, class_noun=noun, corpus="made up", count=int(10 ** (1 + n % 5)))
        tables["rarity"].append({**about, "instance_distance": round(0.2 + 0.01 * (n % 30), 3), "stratum": stratum})
    for method in METHODS:
        seconds = 0.0 if method in ("sd", "umm") else 90.0 + 40 * METHODS.index(method)
        setup = dict(setup_key=f"setup-{method}", method=method, case_id="any", config_json="{}", seconds=seconds)
        tables["setups"].append({**setup, "peak_mb": 900.0})
    for row in range(each):
        pair = row % 5 == 4
        case = [subjects[row % len(subjects)]] + ([subjects[(row + 1) % len(subjects)]] if pair else [])
        kind = "two_references" if pair else list(KINDS)[row // len(subjects) % len(KINDS)]
        nouns = [name.split("-")[0] for name in case]
        words = "a {} next to a {}" if pair else KINDS[kind]
        prompt = words.format(*nouns) + (f" {HOSTILE}" if row == 0 else "")
        for n, method in enumerate(METHODS):
            key = f"{row:06x}{n:014x}"
            tables["run_samples"].append(dict(run_id=RUN, sample_key=key))
            asked = dict(method=method, case_id="+".join(case), subject_count=len(case), prompt_id=f"{kind}-{row}")
            asked |= dict(sample_key=key, prompt_kind=kind, prompt=prompt, image_index=0, seed=2**62 + row)
            if (row, n) == (1, 1):
                tables["undrawn"].append({**asked, "status": "failed", "stage": "generate", "reason": "out of memory"})
                continue
            config = {"alpha": 0.7, "tiue": "made up"} if method == "umm" else {}
            made = dict(
                config_json=json.dumps(config),
                base="none",
                suite="made up",
                method_prompt=prompt,
                path=f"samples/{key}.png",
            )
            tables["samples"].append(
                {**asked, **made, "seconds": 2.0 + 0.1 * n, "peak_mb": 2400.0, "code_version": "0"}
            )
            tables["scores"] += _scores(key, n, case, side, random)
            for place, (name, noun) in enumerate(zip(case, nouns, strict=True), start=1):
                seen = [f"references/{name}-{number}.png" for number in range(2)]
                who = dict(sample_key=key, place=place, subject=name, class_noun=noun, kind="object")
                who |= dict(references_json=json.dumps(seen), held_out_json="[]", setup_key=f"setup-{method}")
                tables["sample_subjects"].append(who)
    return tables


def _scores(key: str, skill: int, case: list[str], side: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """Scores of one picture: the higher a method's number, the more faithful it is."""
    rows = []
    for place, subject in enumerate(case):
        good = random.random() < 0.25 + 0.2 * skill
        values = {"identity": float(good), "dino": 0.3 + 0.12 * skill + 0.15 * good + 0.08 * random.standard_normal()}
        values["clip_i"] = 0.6 + 0.05 * skill + 0.05 * random.standard_normal()
        told: dict[str, Any] = {}
        if len(case) > 1:
            label = "right" if good else LABEL_KINDS[int(random.integers(len(LABEL_KINDS)))]
            there = label != "missing"
            shares = (0.04 + 0.45 * place, 0.24, 0.49 + 0.45 * place, 0.82)
            box = [round(share * side) for share in shares] if there else None
            row = {name: round(0.8 if name == subject else 0.3, 3) for name in case}
            told = {"label": label, "box": box, "detected": 0.7 if there else None, "row": row if there else {}}
            told |= {"references": {one: row for one in case}, "margin": round(0.3 * good - 0.1, 2) if there else None}
            values["several"] = float(good)
        for metric, value in values.items():
            about = told if metric == "several" else {}
            rows.append(_score(key, metric, subject, value, f"{metric} of {subject}", about))
    return [*rows, _score(key, "clip_t", "", 0.32 - 0.01 * skill + 0.03 * random.standard_normal(), "cosine", {})]


def _score(key: str, metric: str, subject: str, value: float, why: str, about: dict[str, Any]) -> dict[str, Any]:
    row = dict(sample_key=key, metric=metric, protocol=f"{metric}/1: made up", subject=subject, explanation=why)
    return {**row, "value": round(float(value), 6), "metadata_json": json.dumps(about)}


def _draw(folder: Path, rows: dict[str, list[dict[str, Any]]], side: int) -> None:
    """A picture a sample, all but one: blots on soft noise, which a PNG holds about as well as it does a photograph."""
    random = np.random.default_rng(1)
    drawn = [_picture(n, side, random) for n in range(min(DRAWINGS, len(rows["samples"])))]
    for name in ("samples", "references", "drawn"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    files = [folder / "drawn" / f"{n}.png" for n in range(len(drawn))]
    for file, picture in zip(files, drawn, strict=True):
        picture.save(file)
    for n, row in enumerate(rows["samples"][:-1]):
        os.link(files[n % len(files)], folder / row["path"])
    for n, about in enumerate(rows["rarity"]):
        for number in range(2):
            os.link(files[(n + number) % len(files)], folder / "references" / f"{about['subject']}-{number}.png")


def _picture(n: int, side: int, random: np.random.Generator) -> Image.Image:
    coarse = Image.fromarray(random.integers(60, 230, (6, 6, 3), dtype=np.uint8))
    picture = coarse.resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    colour = tuple(int(value) for value in random.integers(0, 255, 3))
    low, high = (int(side * share) for share in (0.22 + 0.1 * random.random(), 0.7 + 0.1 * random.random()))
    (draw.ellipse if n % 2 else draw.rectangle)((low, low, high, high), fill=colour)
    picture = picture.filter(ImageFilter.GaussianBlur(side / 200))
    grain = random.normal(0, 4, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def _conclude(store: Store, results: list[dict[str, Any]]) -> None:
    """Means, and what each method gains over the first."""
    values: dict[tuple[str, str, int], dict[PairKey, float]] = {}
    for row in results:
        pair = (row["case_id"], row["prompt_id"], row["seed"], row["subject"])
        values.setdefault((row["method"], row["metric"], row["subject_count"]), {})[pair] = row["value"]
    means, effects = [], []
    for (method, metric, count), by_pair in values.items():
        about = dict(method=method, metric=metric, subject_count=count)
        mean = mean_interval(list(by_pair.values()), [pair[0] for pair in by_pair])
        means.append(
            {
                **about,
                "mean": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "samples": mean.samples,
                "cases": mean.clusters,
            }
        )
        effect = paired_effect(by_pair, values[METHODS[0], metric, count]) if method != METHODS[0] else None
        if effect:
            bounds = dict(
                effect=effect.mean, low=effect.low, high=effect.high, pairs=effect.samples, cases=effect.clusters
            )
            effects.append({**about, "reference": METHODS[0], **bounds})
    store.replace_of_run("summaries", RUN, means)
    store.replace_of_run("comparisons", RUN, effects)
