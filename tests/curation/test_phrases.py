from __future__ import annotations

import pytest

from curation.concepts import count_concepts, names
from curation.phrases import PhraseExtractor


def texts(extractor: PhraseExtractor, caption: str) -> list[str]:
    extraction = extractor([caption])[0]
    for phrase in extraction.phrases:
        assert caption[phrase.start : phrase.end] == phrase.text
    return [phrase.text for phrase in extraction.phrases]


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("a small orange fox next to a tiny blue car", ["a small orange fox", "a tiny blue car"]),
        ("a photo of a dog", ["a dog"]),
        ("a cup of coffee on a wooden table", ["a cup of coffee", "a wooden table"]),
        ("a dog and two cats", ["a dog", "two cats"]),
        ("White Camargue Horse With Brown Foal", ["White Camargue Horse", "Brown Foal"]),
        ("the beauty and the freedom of youth", []),
        ("a teal and gray bicycle near a lamp", ["a teal and gray bicycle", "a lamp"]),
        ("a fox on a blue background", ["a fox"]),
        ("she sees a dog", ["a dog"]),
        ("a dog near a dog", ["a dog"]),
        ("Barack Obama holds a mug", ["a mug"]),
    ],
)
def test_phrases_are_things_a_box_can_hold(extractor, caption: str, phrases: list[str]):
    assert texts(extractor, caption) == phrases


def test_head_and_concept(extractor):
    (boots,) = extractor(["a pair of red boots"])[0].phrases
    assert (boots.text, boots.head, boots.concept) == ("a pair of red boots", "boots", "boot")
    (horse,) = extractor(["White Camargue Horse"])[0].phrases
    assert (horse.head, horse.concept) == ("Horse", "horse")


def test_refused_chunks_say_why(extractor):
    refused = extractor(["her freedom, a picture of it, a teal"])[0].refused
    assert {r.reason for _, r in refused} >= {"phrase_abstract", "phrase_names_the_picture", "phrase_pronoun"}


def test_identical_captions_are_parsed_once(extractor, monkeypatch):
    parsed: list[str] = []
    pipe = extractor._nlp.pipe
    monkeypatch.setattr(extractor._nlp, "pipe", lambda texts, **kw: pipe((parsed.append(t) or t for t in texts), **kw))
    extractor.forget()
    extractor(["a green kettle", "a red kettle", "a green kettle"])
    extractor(["a red kettle"])
    assert parsed == ["a green kettle", "a red kettle"]


def test_concepts_count_under_each_name():
    assert names("a white polar bear", "bear", "bear") == ["bear", "polar bear", "white polar bear"]
    assert names("a pair of boots", "boots", "boot") == ["boot"]
    rows = [("a polar bear", "bear", "bear"), ("two bears", "bears", "bear"), ("a dog", "dog", "dog")]
    counts = {row["concept"]: row["count"] for row in count_concepts(rows)}
    assert (counts["bear"], counts["polar bear"], counts["dog"]) == (2, 1, 1)
    assert sum(row["count"] for row in count_concepts(rows) if row["words"] == 1) == len(rows)
