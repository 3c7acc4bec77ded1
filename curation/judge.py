"""How good the phrases of real captions are: ``python -m curation.judge [--captions FILE] [--json]``.

The shares are over 100 captions of LAION-400M, drawn by seed, whose phrases a person judged by reading
(``quality/judged_captions.jsonl``). The rate is over all captions of the list that is given. Marks of a phrase:

- visual: it names by its kind a thing that the picture behind such a caption can show and a box can hold. Names of
  people, firms and works ("Heidi Hermes", "A Confident Heart") do not, nor do figures of speech.
- bounded: the span has all the words of that noun phrase, brand included, and none of another.

``missed`` are things in the caption that pass as visual and that no phrase has. A phrase that the file does not know,
since the extraction has changed, counts as unjudged, and then the command fails; ``--sample`` prints what to judge.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.arguments import Parser, printable_path
from curation.config import BuildConfig
from curation.errors import Rejected, UserError
from curation.language.captions import clean_caption
from curation.language.phrases import Extraction, PhraseExtractor
from figures import Figure, emit

JUDGED = Path(__file__).parent / "quality" / "judged_captions.jsonl"
SAMPLE, SEED = 100, 0


@dataclass(frozen=True)
class Judgement:
    """Counts over the judged captions."""

    phrases: int
    unjudged: int
    visual: int
    bounded: int
    both: int
    missed: int

    @property
    def recall(self) -> float:
        """Of the visual things in the captions, the share with a phrase that is right."""
        return self.both / (self.visual + self.missed)


def read_judged(path: Path = JUDGED) -> list[dict[str, Any]]:
    """Rows without the file's first line, which says what it is."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def score(rows: Sequence[dict[str, Any]], extractor: PhraseExtractor, config: BuildConfig) -> Judgement:
    """The extraction of today against the judged one; a thing whose phrase is gone counts as missed."""
    phrases = unjudged = visual = bounded = both = missed = 0
    for row in rows:
        known = {(p["start"], p["end"]): p for p in row["phrases"]}
        found = {(p.start, p.end) for p in extract(row["caption"], row["refused"], extractor, config).phrases}
        phrases += len(found)
        unjudged += len(found - known.keys())
        marks = [known[span] for span in found & known.keys()]
        visual += sum(p["visual"] for p in marks)
        bounded += sum(p["bounded"] for p in marks)
        both += sum(p["visual"] and p["bounded"] for p in marks)
        missed += len(row["missed"]) + sum(known[span]["visual"] for span in known.keys() - found)
    return Judgement(phrases, unjudged, visual, bounded, both, missed)


def extract(caption: str, refused: str | None, extractor: PhraseExtractor, config: BuildConfig) -> Extraction:
    """Of a judged caption: cleaned already, or as found where it was refused."""
    if refused:
        try:
            caption = clean_caption(caption, config)
        except Rejected:
            return Extraction((), ())
    return extractor([caption])[0]


def read_captions(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curation.sources.dialects import map_columns

    if not os.path.isfile(path):  # False for a name too long, too
        raise UserError(f"--captions {path}: no such file; name a LAION list (parquet)")
    try:
        column = map_columns(pq.read_schema(path).names).get("caption")
        if column is None:
            raise UserError(f"--captions {path} has no column of captions")
        return [str(caption or "") for caption in pq.read_table(path, columns=[column])[column].to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"--captions {path} is no parquet file ({str(error).splitlines()[0]})") from None


def clean(captions: Sequence[str], config: BuildConfig) -> Iterator[str]:
    """Those that are not refused."""
    for caption in captions:
        try:
            yield clean_caption(caption, config)
        except Rejected:
            continue


def print_sample(captions: Sequence[str], extractor: PhraseExtractor, config: BuildConfig) -> None:
    """Rows as in the judged file, unjudged."""
    for row in random.Random(SEED).sample(range(len(captions)), SAMPLE):
        refused, caption = None, captions[row]
        try:
            caption = clean_caption(caption, config)
        except Rejected as rejection:
            refused = rejection.reason
        found = () if refused else extractor([caption])[0].phrases
        phrases = [{"text": p.text, "start": p.start, "end": p.end, "visual": None, "bounded": None} for p in found]
        record = {"row": row, "caption": caption, "refused": refused, "phrases": phrases, "missed": []}
        print(json.dumps(record, ensure_ascii=False))


def rate(captions: Sequence[str], extractor: PhraseExtractor, config: BuildConfig) -> list[Figure]:
    extractor.forget()
    began = time.perf_counter()
    kept = list(clean(captions, config))
    extractions = extractor(kept)
    seconds = time.perf_counter() - began
    phrases = sum(len(extraction.phrases) for extraction in extractions)
    with_phrase = sum(bool(extraction.phrases) for extraction in extractions)
    return [
        Figure("phrases.captions_per_second", len(captions) / seconds, "captions/s", True),
        Figure("phrases.readable_captions", len(kept) / len(captions), "share", True),
        Figure("phrases.captions_with_phrase", with_phrase / len(captions), "share", True),
        Figure("phrases.per_caption", phrases / len(captions), "phrases", True),
    ]


def shares(judged: Judgement) -> list[Figure]:
    told = judged.phrases - judged.unjudged
    return [
        Figure("phrases.visual", judged.visual / told, "share", True),
        Figure("phrases.bounded", judged.bounded / told, "share", True),
        Figure("phrases.visual_and_bounded", judged.both / told, "share", True),
        Figure("phrases.recall", judged.recall, "share", True),
        Figure("phrases.judged", told, "phrases", True),
        Figure("phrases.unjudged", judged.unjudged, "phrases", False),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m curation.judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--captions", type=printable_path, help="LAION list (parquet): print the rate over its captions too"
    )
    parser.add_argument("--sample", action="store_true", help="print rows of --captions to be judged, and nothing else")
    parser.add_argument("--json", action="store_true", help="one figure a line")
    config = BuildConfig()
    try:
        arguments = parser.parse_args(argv)
        if arguments.sample and arguments.captions is None:
            raise UserError("--sample draws from --captions; name a LAION list (parquet)")
        captions = read_captions(arguments.captions) if arguments.captions is not None else []
        extractor = PhraseExtractor(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.sample:
        print_sample(captions, extractor, config)
        return 0
    judged = score(read_judged(), extractor, config)
    emit((rate(captions, extractor, config) if captions else []) + shares(judged), arguments.json)
    if judged.unjudged:
        print(
            f"error: {judged.unjudged} phrases are unjudged; the extraction has changed: judge again", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
