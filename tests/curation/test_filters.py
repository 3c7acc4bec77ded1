from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.filters import check_scores, choose_boxes
from curation.records import Box, Sample
from curation.vision.dedup import DuplicateIndex, perceptual_hash
from curation.vision.images import decode
from tests.curation.conftest import encoded, picture

CONFIG = BuildConfig()
GOOD = encoded(picture(1))


def animation() -> bytes:
    buffer = io.BytesIO()
    picture(1).save(buffer, "GIF", save_all=True, append_images=[picture(2)])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image_empty"),
        (b"<html>404</html>", "image_unreadable"),
        (GOOD[: len(GOOD) // 2], "image_truncated"),
        (encoded(picture(1), "PNG")[:200], "image_truncated"),
        (animation(), "image_animated"),
        (encoded(Image.fromarray(np.full((64, 64), 4000, np.uint16)), "PNG"), "image_not_8_bit"),
        (encoded(picture(1, 8, 64)), "image_too_small"),
        (encoded(picture(1, 400, 40)), "image_too_long"),
        (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "image_too_many_pixels"),
    ],
)
def test_bad_images_have_a_reason(data: bytes, reason: str):
    with pytest.raises(Rejected) as rejection:
        decode(data, CONFIG)
    assert rejection.value.reason == reason


def test_odd_but_good_images_become_rgb():
    assert decode(encoded(picture(1).convert("CMYK")), CONFIG).mode == "RGB"
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert decode(encoded(clear, "PNG"), CONFIG).getpixel((5, 5)) == (255, 255, 255)
    turned = Image.new("RGB", (80, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue(), CONFIG).size == (40, 80)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"nsfw": "NSFW"}, "flagged_nsfw"),
        ({"punsafe": 0.6}, "unsafe_score"),
        ({"pwatermark": 0.9}, "watermark_score"),
        ({"similarity": -0.1}, "low_similarity"),
        ({"aesthetic": -0.1}, "low_aesthetic"),
        ({"nsfw": "UNLIKELY", "punsafe": 0.4, "pwatermark": 0.7, "similarity": 0.3}, None),
        ({}, None),
    ],
)
def test_scores_of_the_corpus(scores, reason):
    try:
        check_scores(Sample("k", "a dog", **scores), CONFIG)
    except Rejected as rejection:
        assert rejection.reason == reason
    else:
        assert reason is None


def reasons(candidates):
    outcome = choose_boxes(candidates, 100, 100, CONFIG)
    return [o.reason if isinstance(o, Rejected) else o for o in outcome]


def test_one_box_a_phrase_and_one_phrase_an_object():
    fox, same, car = Box(0.1, 0.1, 0.4, 0.5, 0.8), Box(0.11, 0.1, 0.4, 0.5, 0.6), Box(0.6, 0.5, 0.9, 0.9, 0.5)
    assert reasons([[same], [fox, car], []]) == ["box_of_other_phrase", fox, "no_box"]


def test_area_rules_come_before_suppression():
    scene, fox = Box(0, 0, 1, 1, 0.9), Box(0.1, 0, 1, 0.9, 0.5)
    assert fox.iou(scene) > CONFIG.nms_iou
    assert reasons([[scene, fox]]) == [fox]
    assert reasons([[scene]]) == ["box_whole_image"]
    assert reasons([[Box(0.1, 0.1, 0.15, 0.15, 0.9)]]) == ["box_too_small"]
    assert reasons([[Box(0.1, 0.1, 0.9, 0.2, 0.9)]]) == ["crop_too_small"]


def test_long_thin_boxes_are_no_subjects():
    long = Box(0.0, 0.4, 1.0, 0.45, 0.9)
    outcome = choose_boxes([[long]], 400, 400, CONFIG)
    assert isinstance(outcome[0], Rejected) and outcome[0].reason == "box_too_long"


def test_too_many_instances_are_ambiguous():
    boxes = [Box(x / 5, 0.1, x / 5 + 0.19, 0.6, 0.9) for x in range(5)]
    assert reasons([boxes]) == ["phrase_ambiguous"]
    assert reasons([boxes[:4]]) == [boxes[0]]


def test_near_duplicates_by_bits():
    index = DuplicateIndex(4)
    index.add_near(f"{0:016x}")
    assert index.has_near(f"{0b1111 << 30:016x}")
    assert index.has_near(f"{1 | 1 << 20 | 1 << 40 | 1 << 63:016x}")  # one bit in each of four bands
    assert not index.has_near(f"{0b11111 << 30:016x}")
    off = DuplicateIndex(-1)
    off.add_near(f"{0:016x}")
    assert not off.has_near(f"{0:016x}")


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 4, 5, 9])
def test_the_index_finds_what_a_scan_finds(bits):
    rng = random.Random(bits)
    known = [rng.getrandbits(64) for _ in range(100)]
    index = DuplicateIndex(bits)
    for value in known:
        index.add_near(f"{value:016x}")
    found = []
    for asked in range(400):
        value = rng.choice(known)
        for bit in rng.sample(range(64), asked % 2 + bits):  # just as many, or one too many
            value ^= 1 << bit
        assert index.has_near(f"{value:016x}") == any((value ^ other).bit_count() <= bits for other in known)
        found.append(index.has_near(f"{value:016x}"))
    assert 150 < sum(found) < 250


def test_recompressed_image_is_near_and_another_is_not():
    index = DuplicateIndex(CONFIG.near_duplicate_bits)
    index.add_near(perceptual_hash(picture(1, 256, 256)))
    assert index.has_near(perceptual_hash(decode(encoded(picture(1, 256, 256).resize((200, 200))), CONFIG)))
    assert not any(index.has_near(perceptual_hash(picture(seed, 256, 256))) for seed in range(2, 60))
