"""Model cards of the mini family: `python -m umm_bench.mini.cards [NAME ...] [--no-samples]`.

Writes a README.md into each model's weights folder and the family's MODEL_CARD.md with its pictures. Every number comes
from what `python -m umm_bench.mini.evaluate --write`, `umm_bench.mini.evaluation.comparison --write` and
`benchmarks.augmentation --write` kept, and from the `training.json` beside the weights; nothing is measured here.
Without names, all models.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.mini import family
from umm_bench.mini.cards.pictures import alpha_plot, contact_sheet, rarity_plot
from umm_bench.mini.cards.texts import CHECKER, MODELS, NOT_SEEN, SCENES, STUDIES
from umm_bench.mini.measured import read_figures

CARD = Path(__file__).parents[1] / "MODEL_CARD.md"
PICTURES = Path(__file__).parents[3] / "docs" / "mini"
SAMPLES, RARITY, SUBJECTS, ALPHA = "samples.webp", "rarity.svg", "subjects.webp", "alpha.svg"

Figures = dict[str, dict[str, Any]]


def parameters(folder: Path) -> int:
    """Numbers in all safetensors below a folder, from their headers."""
    total = 0
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total


def size(folder: Path) -> str:
    """ "2.7 M parameters, 5.3 MB"."""
    megabytes = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    return f"{parameters(folder) / 1e6:.1f} M parameters, {megabytes:.1f} MB in half precision"


def kinds(folder: Path) -> list[str]:
    """The `model_type` in a folder's config.json, then its image tower's; none where a pipeline lies there."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return [part["model_type"] for part in (config, config.get("vision_config", {})) if "model_type" in part]


def training_lines(folder: Path) -> list[str]:
    """One line a trained part, its runs in order, from training.json; what is absent there is left out."""
    path = folder / family.TRAINING
    if not path.exists():
        return []
    parts = json.loads(path.read_text(encoding="utf-8"))
    return [f"- `pretrain {part}`: {', then '.join(map(_run, runs))}" for part, runs in parts.items()]


def _run(run: dict[str, Any]) -> str:
    known = {"steps", "batch_size", "hours"}
    words = []
    if "steps" in run:
        words.append(f"{run['steps']:,} steps")
    if "batch_size" in run:
        words.append(f"of batch {run['batch_size']}")
    if {"steps", "batch_size"} <= run.keys():
        words.append(f"({run['steps'] * run['batch_size']:,} samples)")
    if "hours" in run:
        words.append(f"in {run['hours']:g} h")
    words += [f"{key.replace('_', ' ')} {value}" for key, value in run.items() if key not in known]
    return " ".join(words)


def figure_rows(figures: Figures, prefixes: Sequence[str] = ("",)) -> list[str]:
    """A Markdown table of the figures whose names begin with one of `prefixes`; none, no table."""
    rows = []
    for name, row in figures.items():
        if not name.startswith(tuple(prefixes)):
            continue
        aim = "" if row["bar"] is None else f"{'≥' if row['higher_is_better'] else '≤'} {row['bar']:g}"
        reached = {None: "", True: "yes", False: "no"}[row["ok"]]
        rows.append(f"| `{name}` | {row['value']:g} | {row['unit']} | {aim} | {reached} | {row.get('note', '')} |")
    head = ["| figure | value | unit | aim | reached | interval and remarks |", "|---|---|---|---|---|---|"]
    return head + rows if rows else []


def missed(figures: Figures) -> list[str]:
    """Names of the figures below their aim."""
    return [name for name, row in figures.items() if row["ok"] is False]


def model_card(name: str, figures: Figures) -> str:
    """The README.md of one shipped model."""
    model, folder = MODELS[name], family.path(name)
    header = ["---", "license: apache-2.0", f"library_name: {model.library}"]
    header += [f"pipeline_tag: {model.pipeline_tag}"] if model.pipeline_tag else []
    header += ["tags:", *(f"- {tag}" for tag in dict.fromkeys(("umm-bench", "mini", *kinds(folder), *model.tags)))]
    header += ["---"]
    what = " with ".join(f"`{kind}`" for kind in kinds(folder))
    measured = figure_rows(figures, model.figures)
    trained = training_lines(folder)
    sections = [
        "\n".join(header),
        f"# {model.title}",
        model.what,
        f"{what + ', ' if what else ''}{size(folder)}. {NOT_SEEN}",
        "```python\n" + model.use.format(folder=f"umm_bench/mini/weights/{name}") + "\n```",
    ]
    if trained:
        sections += ["## Training", "\n".join(trained), "Each line is a command, resumable and seeded, on CPU or GPU:"]
        sections[-1] += " `python -m umm_bench.mini.pretrain NAME`."
    if measured:
        sections += ["## Measured", "\n".join(measured)]
        sections.append("On held-out data, in float32: `python -m umm_bench.mini.evaluate`.")
    sections += ["## Limits", model.limits]
    below = [n for n in missed(figures) if n.startswith(model.figures)]
    if below:
        sections.append("Below its aim: " + ", ".join(f"`{n}`" for n in below) + ".")
    if model.tried:
        sections += ["## What was tried", "\n".join(f"- {line}" for line in model.tried)]
    return "\n\n".join(sections) + "\n"


def family_card(figures: Figures, pictures: Path = PICTURES) -> str:
    """MODEL_CARD.md: what is there, how it was trained, all figures, the pictures."""
    there = [name for name in MODELS if (family.WEIGHTS / name).is_dir()]
    table = ["| folder | model | size |", "|---|---|---|"]
    table += [f"| [`{n}`](weights/{n}/README.md) | {MODELS[n].title} | {size(family.path(n))} |" for n in there]
    own = {name: row for name, row in figures.items() if not name.startswith(tuple(STUDIES))}
    below = missed(own)
    reached = sum(row["ok"] is True for row in own.values())
    verdict = f"{reached} of {reached + len(below)} aims are reached"
    verdict += "; below their aim: " + ", ".join(f"`{n}`" for n in below) + "." if below else "."
    sections = [
        "# The mini family",
        f"Small models for {SCENES}, so that every command of the project works offline on two CPU cores. {NOT_SEEN}",
        "\n".join(table),
        "## Training",
        "\n".join(dict.fromkeys(line for name in there for line in training_lines(family.path(name)))),
        "## Measured",
        "\n".join(figure_rows(own)),
        f"`python -m umm_bench.mini.evaluate` prints them again. {verdict}",
        CHECKER,
    ]
    for prefix, text in STUDIES.items():
        if rows := figure_rows(figures, (prefix,)):
            sections += [text, "\n".join(rows)]
    link = os.path.relpath(pictures, CARD.parent)
    for file, title, text in (
        (
            SAMPLES,
            "Samples",
            "64 frequent concepts, in the order of their frequency, one fixed seed each, not selected.",
        ),
        (RARITY, "Rarity", "Plain SD's concept accuracy against how often a concept was there to be learnt."),
        (ALPHA, "What alpha trades", "UMM on held-out looks, from text alone to the image's most."),
        (
            SUBJECTS,
            "Six held-out subjects",
            "`python -m umm_bench.mini.evaluation.comparison`: same prompt and seed in a row.",
        ),
    ):
        if (pictures / file).exists():
            sections += [f"## {title}", f"{text}\n\n![{title}]({link}/{file})"]
    tried = [line for model in MODELS.values() for line in model.tried]
    sections += ["## What was tried", "\n".join(f"- {line}" for line in tried)]
    return "\n\n".join(section for section in sections if section) + "\n"


def write_cards(names: Sequence[str], samples: bool = True, pictures: Path = PICTURES, card: Path = CARD) -> list[Path]:
    """Write the cards of `names` and the family's, with its pictures. UserError for an unknown name or no figures."""
    figures = read_figures()
    folders = {name: family.path(name) for name in names}
    written = []
    for name, folder in folders.items():
        written.append(folder / "README.md")
        written[-1].write_text(model_card(name, figures), encoding="utf-8")
    if samples and "sd" in names:
        written.append(contact_sheet(pictures / SAMPLES))
    if row := figures.get("sd.rarity_slope"):
        pictures.mkdir(parents=True, exist_ok=True)
        written.append(pictures / RARITY)
        written[-1].write_text(rarity_plot(row["points"], row["value"]), encoding="utf-8")
    if row := figures.get("tiue.alpha_gain"):
        pictures.mkdir(parents=True, exist_ok=True)
        written.append(pictures / ALPHA)
        written[-1].write_text(alpha_plot(row["points"]), encoding="utf-8")
    written.append(card)
    card.write_text(family_card(figures, pictures), encoding="utf-8")
    return written


def main(argv: list[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}; default all")
    parser.add_argument("--no-samples", action="store_true", help="keep the contact sheet as it is")
    args = parser.parse_args(argv)
    quiet_libraries()
    return run_command(lambda: _print(write_cards(args.names or list(MODELS), not args.no_samples)))


def _print(written: Sequence[Path]) -> None:
    for path in written:
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
