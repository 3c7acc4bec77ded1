"""The gallery's data: every sample of a run in small scripts beside `gallery.html`, read from the disk.

`head.js` has what all rows share, `rows-N.js` what filters and sorting need, `detail-N.js` the rest, which the page
asks for when a picture is opened. So the page itself is of one size whatever the run's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atomic import whole_file
from reports.data import FIRST_METRICS, Reader, Report, in_order
from reports.pictures import Picture, Pictures
from reports.words import title_of
from umm_bench.bench.failures import GROUND_TRUTH_KINDS, LABEL_KINDS

ROWS_PER_SHARD = 2000
ROWS_PER_DETAIL = 50
RIGHT = "right"
SAMPLES = """
select sample_key, samples.method, samples.case_id, samples.prompt_id, samples.prompt_kind, samples.prompt,
       samples.image_index, cast(samples.seed as text), path, method_prompt, config_json, seconds, peak_mb,
       null as status, null as reason
from run_samples join samples using (sample_key) where run_id = ?
union all
select sample_key, method, case_id, prompt_id, prompt_kind, prompt, image_index, cast(seed as text), null, null, null,
       null, null, status, reason
from run_samples join undrawn using (sample_key)
where run_id = ? and not exists (from samples where samples.sample_key = run_samples.sample_key)
order by case_id, prompt_id, image_index, sample_key
"""
SUBJECTS = """
select samples.case_id, who.subject, any_value(who.class_noun), any_value(who.references_json), any_value(stratum)
from run_samples join samples using (sample_key) join sample_subjects who using (sample_key)
     left join rarity on rarity.run_id = run_samples.run_id and rarity.subject = who.subject
where run_samples.run_id = ? group by samples.case_id, who.subject order by samples.case_id, min(place)
"""
SCORES = """
select sample_key, metric, subject, value, explanation,
       case when metric in ('several', 'identity') then metadata_json end as evidence
from run_results where run_id = ? order by sample_key, metric, subject
"""


@dataclass
class Scored:
    """The scores of a sample: rows of metric, subject, value, explanation; and what became of each subject."""

    rows: list[tuple[str, str, float, str]] = field(default_factory=list)
    told: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # metric -> subject -> evidence

    def values(self) -> dict[str, float]:
        """Metric -> the mean over the subjects."""
        found: dict[str, list[float]] = {}
        for metric, _, value, _ in self.rows:
            found.setdefault(metric, []).append(value)
        return {metric: sum(values) / len(values) for metric, values in found.items()}


def write_gallery(reader: Reader, report: Report, pictures: Pictures) -> list[str]:
    """Writes the scripts into `gallery/` of the report's folder; returns those to load with the page, in order."""
    rows, cases = _read_rows(reader), _read_cases(reader)
    for case, _, _ in rows:  # of which nothing could be drawn
        cases.setdefault(case, [_subject(name) for name in case.split("+")])
    pictures.prepare((reader.folder / row[8], row[0]) for group in rows.values() for row in group if row[8])
    scored = _read_scores(reader)
    failures = {failure.sample.key: failure for failure in report.failures}
    methods = list(report.methods)
    metrics = in_order({row[0] for scores in scored.values() for row in scores.rows}, FIRST_METRICS)
    methods += [
        method for method in dict.fromkeys(r[1] for group in rows.values() for r in group if r[1] not in methods)
    ]
    known = {name: n for n, name in enumerate(cases)}
    labels: dict[str, int] = {}
    kinds: dict[str, int] = {}
    table, details = [], []
    for (case, prompt_id, image), group in rows.items():
        cells, about = [], {}
        for key, method, _, _, _, _, _, seed, path, own, config, seconds, peak, status, reason in group:
            scores = scored.get(key, Scored())
            failure = failures.get(key)
            label = f"{status} to draw" if status == "failed" else status or label_of(scores)
            label = label or (failure.kind if failure else "")
            picture = pictures.of(reader.folder / path, key) if path else None
            values = scores.values()
            cells.append(
                [
                    methods.index(method),
                    key,
                    picture.href.removeprefix("images/") if picture and picture.href else "",
                    int(bool(picture and picture.pixelated)),
                    labels.setdefault(label, len(labels)),
                    [_short(values.get(metric)) for metric in metrics],
                ]
            )
            about[key] = {
                "seed": seed,
                "prompt": own,
                "arguments": json.loads(config or "{}"),
                "seconds": seconds,
                "peak": peak,
                "reason": reason or (failure.reason if failure else None),
                "scores": [
                    (metric, subject, _short(v, 5), why)
                    for metric, subject, v, why in sorted(scores.rows, key=lambda row: metrics.index(row[0]))
                ],
                "size": picture.size if picture else None,
                "boxes": list(_boxes(scores, picture, [subject["id"] for subject in cases[case]])),
            }
        kind = kinds.setdefault(group[0][4] or "", len(kinds))
        table.append([known[case], prompt_id, kind, group[0][5], image, sorted(cells)])
        details.append(about)
    head = {
        "methods": methods,
        "metrics": [
            {
                "name": name,
                "title": title_of(name),
                "protocol": report.protocols.get(name, ""),
                "lower": name in report.lower_is_better,
            }
            for name in metrics
        ],
        "cases": [
            [
                {**subject, "references": _shown(subject["references"], subject["id"], reader, pictures)}
                for subject in case
            ]
            for case in cases.values()
        ],
        "kinds": list(kinds),
        "labels": list(labels),
        "perDetail": ROWS_PER_DETAIL,
        "shards": -(-len(table) // ROWS_PER_SHARD),
        "rows": len(table),
    }
    return _write(pictures.folder / "gallery", head, table, details)


def label_of(scores: Scored) -> str:
    """What went wrong in a sample, by its gravest label or verdict; "right" for nothing, "" where nobody looked."""
    given = [told.get("label") for told in (scores.told.get("several") or scores.told.get("identity", {})).values()]
    named = [label for label in LABEL_KINDS if label in given]
    if named or RIGHT in given:
        return named[0] if named else RIGHT
    verdicts = [metric for metric in GROUND_TRUTH_KINDS for name, _, value, _ in scores.rows if name == metric]
    wrong = [metric for metric in verdicts if any(row[0] == metric and row[2] == 0 for row in scores.rows)]
    return GROUND_TRUTH_KINDS[wrong[0]] if wrong else RIGHT if verdicts else ""


def _boxes(scores: Scored, picture: Picture | None, subjects: Sequence[str]) -> Iterable[list[Any]]:
    """[metric, place of the subject, label, x, y, width, height], the last four in shares of the picture's sides."""
    if picture is None or picture.href is None:
        return
    for metric, sides in (("several", picture.size), ("identity", (1, 1))):  # pixels, and shares already
        for subject, told in scores.told.get(metric, {}).items():
            if told.get("box"):
                x0, y0, x1, y1 = (value / side for value, side in zip(told["box"], (*sides, *sides), strict=True))
                place = subjects.index(subject) if subject in subjects else 0
                shares = [round(value, 4) for value in (x0, y0, x1 - x0, y1 - y0)]
                yield [metric, place, told.get("label") or "", *shares]


def _read_rows(reader: Reader) -> dict[tuple[str, str, int], list[tuple[Any, ...]]]:
    """(case, prompt id, image index) -> its samples, those that could not be drawn among them."""
    found: dict[tuple[str, str, int], list[tuple[Any, ...]]] = {}
    for row in reader.connection.execute(SAMPLES, [reader.run_id, reader.run_id]).fetchall():
        found.setdefault((row[2], row[3], row[6]), []).append(row)
    return found


def _read_cases(reader: Reader) -> dict[str, list[dict[str, Any]]]:
    cases: dict[str, list[dict[str, Any]]] = {}
    for case, subject, noun, references, stratum in reader.rows(SUBJECTS):
        cases.setdefault(case, []).append(_subject(subject, noun, stratum, json.loads(references or "[]")))
    return cases


def _subject(name: str, noun: str = "", stratum: str | None = None, references: Sequence[str] = ()) -> dict[str, Any]:
    return {"id": name, "noun": noun, "stratum": stratum, "references": references}


def _read_scores(reader: Reader) -> dict[str, Scored]:
    found: dict[str, Scored] = {}
    for key, metric, subject, value, explanation, evidence in reader.rows(SCORES):
        scores = found.setdefault(key, Scored())
        scores.rows.append((metric, subject, value, explanation))
        if evidence:
            scores.told.setdefault(metric, {})[subject] = json.loads(evidence)
    return found


def _shown(paths: Sequence[str], subject: str, reader: Reader, pictures: Pictures) -> list[list[Any]]:
    """[href, whether it is pixel art] of each reference that can be read."""
    names = [f"reference-{subject}" if n == 0 else f"reference-{subject}#{n + 1}" for n in range(len(paths))]
    found = [pictures.of(reader.folder / path, name) for path, name in zip(paths, names, strict=True)]
    return [[picture.href, int(picture.pixelated)] for picture in found if picture.href]


def _write(folder: Path, head: dict[str, Any], table: list[Any], details: list[dict[str, Any]]) -> list[str]:
    """The names of the scripts that the page loads, relative to it."""
    scripts = {"head.js": f"gallery.start({script_json(head)});\n"}
    for n in range(head["shards"]):
        part = table[n * ROWS_PER_SHARD : (n + 1) * ROWS_PER_SHARD]
        scripts[f"rows-{n}.js"] = f"gallery.rows({script_json(part)});\n"
    eager = [f"{folder.name}/{name}" for name in scripts]
    for n in range(0, len(details), ROWS_PER_DETAIL):
        merged = {key: about for group in details[n : n + ROWS_PER_DETAIL] for key, about in group.items()}
        number = n // ROWS_PER_DETAIL
        scripts[f"detail-{number}.js"] = f"gallery.details({number}, {script_json(merged)});\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in scripts.items():
        with whole_file(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.name not in scripts:
            path.unlink()
    return eager


def script_json(value: Any) -> str:
    """JSON that may stand in a script: nothing in it ends the script, a comment or a line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _short(value: float | None, digits: int = 4) -> float | None:
    """None for what no number says, too."""
    return None if value is None or value != value or abs(value) == float("inf") else round(value, digits)
