"""The page that people vote on: one file with all its pictures, which names no method."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from reports.gallery import script_json
from reports.page import asset, write_page
from reports.pictures import JPEG, PIXEL_ART_SIZE, THUMBNAIL_SIZE
from umm_bench.bench.judging.ballots import Ballot, Question
from umm_bench.errors import UserError


def write_ballot(ballot: Ballot, target: Path) -> Path:
    """Whole or not at all. UserError for a picture that cannot be read."""
    known: dict[Path | None, str] = {}
    questions = [_asked(n, each, known) for n, each in enumerate(ballot.questions, start=1)]
    numbers = {address: n for n, address in enumerate(dict.fromkeys(known.values()))}
    for question in questions:
        question["references"] = [numbers[address] for address in question["references"]]
        question |= {side: numbers[question[side]] for side in ("left", "right")}
    content = {"ballot": ballot.id, "questions": questions, "pictures": list(numbers)}
    data = Markup(f"const BALLOT = {script_json(content)};")
    return write_page(
        "vote.html.j2", target, ("vote.css",), inline=[data, asset("vote.js")], run=None, count=len(questions)
    )


def _asked(number: int, question: Question, known: dict[Path | None, str]) -> dict[str, Any]:
    paths = (*question.references, question.left, question.right)
    for path in paths:
        known[path] = known.get(path) or _data(path)
    sides = {"left": known[question.left], "right": known[question.right]}
    return {"pair": number, "prompt": question.prompt, "references": [known[p] for p in question.references], **sides}


def _data(path: Path | None) -> str:
    """A picture as its own address, made anew: a file of the bench says in itself by what it was drawn."""
    content = BytesIO()
    try:
        with Image.open(path) if path else Image.new("RGB", (64, 64), "gray") as opened:
            image = Image.new("RGB", opened.size)
            image.paste(opened.convert("RGB"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}; draw the run again, its finished pictures are kept") from error
    small = max(image.size) <= PIXEL_ART_SIZE
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    image.save(content, "PNG") if small else image.save(content, "JPEG", **JPEG)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(content.getvalue()).decode()}"
