from __future__ import annotations

import pytest

from curation.language.concepts import count_concepts, names
from curation.language.phrases import PhraseExtractor


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
        ("White Camargue Horse And Brown Foal", ["White Camargue Horse", "Brown Foal"]),
        ("the beauty and the freedom of youth", []),
        ("a teal and gray bicycle near a lamp", ["a teal and gray bicycle", "a lamp"]),
        ("a fox on a blue background", ["a fox"]),
        ("she sees a dog", ["a dog"]),
        ("a dog near a dog", ["a dog"]),
        ("Barack Obama holds a mug", ["a mug"]),
        # A noun that the tagger takes for a verb, an adverb or a name.
        (
            "a photo of a red rose next to a green teddy bear on a green background",
            ["a red rose", "a green teddy bear"],
        ),
        ("a big 3d gray and blue soccer ball", ["a big 3d gray and blue soccer ball"]),
        ("a 3d rendered yellow dolphin to the left of a white cat", ["a 3d rendered yellow dolphin", "a white cat"]),
        # Parts belong to the thing, things with an article of their own do not; conjuncts never do.
        ("a house with garden next to a fox with a car", ["a house with garden", "a fox", "a car"]),
        ("ankle boots in black suede and a bag", ["ankle boots in black suede", "a bag"]),
        ("a bowl of soup and bread", ["a bowl of soup", "bread"]),
        # Where something is, and what the picture is.
        ("a fox on a beach in front of a plain white wall", ["a fox"]),
        ("a dog on a green background with stripes", ["a dog"]),
        ("a beach with palms", ["a beach with palms"]),
        ("Buffalo herds Stock Photography", ["Buffalo herds"]),
        # Titles, codes, numbers, measures.
        ("Modern Oak Chair - Wooden Table | Garden Lamp", ["Modern Oak Chair", "Wooden Table", "Garden Lamp"]),
        ("Blue Heart Necklace (287 grams) 1234", ["Blue Heart Necklace"]),
        ("WTX-400 ZR5 by Havilux", []),
        ("a cat and a pair of red scissors", ["a cat", "a pair of red scissors"]),
    ],
)
def test_phrases_are_things_a_box_can_hold(extractor, caption: str, phrases: list[str]):
    assert texts(extractor, caption) == phrases


@pytest.mark.parametrize(
    ("caption", "noun"),
    [
        ("a big ice cream on a plate", "ice cream"),
        ("a small 3d gray movie camera", "movie camera"),
        ("a dark gray cat face", "cat face"),
        ("a glossy teal map of japan", "map of japan"),
        ("a cup of coffee", "cup of coffee"),
        ("a vase of red roses", "vase"),  # what it looks like is for the picture to say
        ("a flat vector camera", "camera"),
        ("a leather bag", "bag"),
        ("a small orange fox", "fox"),
        ("a house with garden", "house"),
        ("a pair of red boots", "boots"),
        ("White Camargue Horse", "Camargue Horse"),
    ],
)
def test_the_noun_is_a_name_without_looks(extractor, caption: str, noun: str):
    (phrase,) = extractor([caption])[0].phrases[:1]
    assert phrase.noun == noun and phrase.noun in phrase.text


@pytest.mark.parametrize(
    ("caption", "text", "head", "concept", "noun"),
    [
        ("a hot-dog on a plate", "a hot-dog", "hot-dog", "hot-dog", "hot-dog"),
        ("two teddy-bears on a shelf", "two teddy-bears", "teddy-bears", "teddy-bear", "teddy-bears"),
        ("An Ice-Cream In A Blue Cup", "An Ice-Cream", "Ice-Cream", "ice-cream", "Ice-Cream"),
        ("a two-seater sofa", "a two-seater sofa", "sofa", "sofa", "two-seater sofa"),
        ("a 3-seater sofa", "a 3-seater sofa", "sofa", "sofa", "3-seater sofa"),
        ("a blue T-shirt", "a blue T-shirt", "T-shirt", "t-shirt", "T-shirt"),
        ("a jack-o'-lantern", "a jack-o'-lantern", "jack-o'-lantern", "jack-o'-lantern", "jack-o'-lantern"),
        ("a merry-go-round horse", "a merry-go-round horse", "horse", "horse", "merry-go-round horse"),
        ("a dog-friendly hotel", "a dog-friendly hotel", "hotel", "hotel", "hotel"),
        ("a red-brown fox", "a red-brown fox", "fox", "fox", "fox"),
        ("a hot\u2011dog", "a hot\u2011dog", "hot\u2011dog", "hot-dog", "hot\u2011dog"),
        ("a teddy\u2010bear", "a teddy\u2010bear", "teddy\u2010bear", "teddy-bear", "teddy\u2010bear"),
        ("a tea\u2013cup", "a tea\u2013cup", "tea\u2013cup", "tea-cup", "tea\u2013cup"),
        ("a tea\uff0dcup", "a tea\uff0dcup", "tea\uff0dcup", "tea-cup", "tea\uff0dcup"),
    ],
)
def test_a_hyphenated_compound_is_one_word(extractor, caption, text, head, concept, noun):
    (phrase,) = extractor([caption])[0].phrases[:1]
    assert (phrase.text, phrase.head, phrase.concept, phrase.noun) == (text, head, concept, noun)
    assert caption[phrase.start : phrase.end] == text


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("a close-up of a dog", "phrase_names_the_picture"),
        ("a self-portrait", "phrase_names_the_picture"),
        ("a blue-green", "phrase_names_a_colour"),
        ("the half-time", "phrase_abstract"),
        ("The Swearing-In", "phrase_unknown_noun"),
    ],
)
def test_compounds_of_what_no_box_holds_are_refused(extractor, caption: str, reason: str):
    assert reason in [rejection.reason for _, rejection in extractor([caption])[0].refused]


def test_dashes_between_words_still_part_them(extractor):
    assert texts(extractor, "Modern Oak Chair – Wooden Table — Garden Lamp") == [
        "Modern Oak Chair",
        "Wooden Table",
        "Garden Lamp",
    ]
    assert texts(extractor, "a teddy-bear's ear") == ["a teddy-bear's ear"]


def test_head_and_concept(extractor):
    (boots,) = extractor(["a pair of red boots"])[0].phrases
    assert (boots.text, boots.head, boots.concept) == ("a pair of red boots", "boots", "boot")
    (horse,) = extractor(["White Camargue Horse"])[0].phrases
    assert (horse.head, horse.concept) == ("Horse", "horse")
    (glasses,) = extractor(["a pair of red sunglasses"])[0].phrases
    assert glasses.concept == "sunglasses"


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


def test_spans_hold_in_any_caption(extractor):
    """Odd characters keep their places: emoji, accents, letters whose lower case is longer."""
    for caption in (
        "A Red İstanbul Tram 🚋 And A Café Table",
        "ÉCLAIR BOX, “Two” Small Dogs",
        "a dog " * 60,
        "...",
        "-",
    ):
        texts(extractor, caption)


def test_concepts_count_under_each_name():
    assert names("a white polar bear", "bear", "bear") == ["bear", "polar bear", "white polar bear"]
    assert names("a pair of boots", "boots", "boot") == ["boot"]
    assert names("a 3-seater sofa", "sofa", "sofa") == ["sofa", "3-seater sofa"]
    assert names("two hot-dogs", "hot-dogs", "hot-dog") == ["hot-dog", "two hot-dog"]
    assert names("a hot-dog dog", "dog", "dog") == ["dog", "hot-dog dog"]
    assert names("a café\u2010bar table", "table", "table") == ["table", "café-bar table"]
    assert names("12 dogs", "dogs", "dog") == ["dog"]
    rows = [("a polar bear", "bear", "bear"), ("two bears", "bears", "bear"), ("a dog", "dog", "dog")]
    counts = {row["concept"]: row["count"] for row in count_concepts(rows)}
    assert (counts["bear"], counts["polar bear"], counts["dog"]) == (2, 1, 1)
    assert sum(row["count"] for row in count_concepts(rows) if row["words"] == 1) == len(rows)
