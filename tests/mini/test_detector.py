"""The detector's recipe: prompts that tell the truth, a loss that trains every part, a folder that loads anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForZeroShotObjectDetection, AutoProcessor
from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps

from umm_bench.mini import family
from umm_bench.mini.recipes import detector, detector_data
from umm_bench.mini.recipes.detector import DetectorConfig, build_detector
from umm_bench.mini.recipes.detector_data import Batch, Grounding, PromptConfig, training_batch
from umm_bench.mini.recipes.detector_loss import alignment_loss, detector_loss
from umm_bench.mini.world import scenes

TINY = DetectorConfig(
    stages=(16, 16, 32, 32), d_model=32, heads=2, ffn=32, encoder_layers=1, text_width=32, num_queries=8
)


@pytest.fixture(scope="module")
def tiny():
    return build_detector(TINY)


def batch_of(processor, size: int, step: int = 0) -> Batch:
    return training_batch(step, PromptConfig(), processor, size)


def single(batch: Batch, i: int) -> Batch:
    return Batch({k: v[i : i + 1] for k, v in batch.inputs.items()}, batch.labels[i : i + 1], batch.concepts[i : i + 1])


def test_the_default_is_small_and_seeded():
    model, _ = build_detector(DetectorConfig())
    again, _ = build_detector(DetectorConfig())
    assert sum(p.numel() for p in model.parameters()) <= 4_000_000
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_it_starts_with_the_eyes_of_the_scoring_clip():
    recipe = detector.DetectorRecipe()
    tower = AutoModel.from_pretrained(family.path("scoring_clip"), dtype=torch.float32).vision_model.eval()
    pixels = torch.rand(2, 3, 64, 64)
    maps = recipe.module.model.backbone.conv_encoder.model(pixels).feature_maps
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 8), (4, 4), (2, 2)]
    assert torch.allclose(maps[-1].mean((2, 3)), tower(pixels).pooler_output, atol=1e-4)


def test_building_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build_detector(TINY)
    assert torch.equal(torch.rand(1), expected)


def test_the_tokenizer_keeps_bert_delimiters_and_spells_what_it_does_not_know(tiny):
    tokenizer = tiny[1].tokenizer
    assert tokenizer("a fox?")["input_ids"][-3:-1] != tokenizer("a fox.")["input_ids"][-3:-1]
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("[PAD]", "[CLS]", "[SEP]", ".", "?")] == [
        0,
        101,
        102,
        1012,
        1029,
    ]
    assert tokenizer.tokenize("a small Fox") == ["a", "small", "fox"]
    assert tokenizer.tokenize("qzx") == ["q", "##z", "##x"]
    for concept in scenes.sprites.load().concepts:
        assert "[UNK]" not in tokenizer.tokenize(concept.name), concept.name


def test_every_caption_word_is_one_token(tiny):
    tokenizer = tiny[1].tokenizer
    for key in range(150):
        caption = scenes.compose(key).caption
        assert not [t for t in tokenizer.tokenize(caption) if t.startswith("##")], caption


def test_spans_cover_exactly_the_phrases(tiny):
    tokenizer = tiny[1].tokenizer
    ids = tokenizer("a small red fox. dog. a beach.", padding="max_length", max_length=20)["input_ids"]
    spans = detector_data.phrase_spans(torch.tensor(ids), (0, 101, 102, 1012, 1029))
    assert [tokenizer.decode(ids[a:b]) for a, b in spans] == ["a small red fox", "dog", "a beach"]


def test_a_batch_is_a_function_of_seed_and_step(tiny):
    processor = tiny[1]
    a, b, other = (batch_of(processor, 3, step) for step in (5, 5, 6))
    assert all(torch.equal(a.inputs[k], b.inputs[k]) for k in a.inputs)
    assert all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a.labels, b.labels, strict=True))
    assert not torch.equal(a.inputs["pixel_values"], other.inputs["pixel_values"])
    reseeded = training_batch(5, PromptConfig(), processor, 3, seed=1)
    assert not torch.equal(a.inputs["pixel_values"], reseeded.inputs["pixel_values"])


def test_prompts_tell_the_truth():
    positions = set()
    for key in range(120):
        scene = scenes.compose(key)
        truth = detector_data.ground_truth(scene, scenes.rng_for("test", key), PromptConfig())
        named = {o.concept: o.box for o in scene.objects}
        boxes = sorted(box for of_phrase in truth.boxes for box in of_phrase)
        assert boxes == sorted(o.box for o in scene.objects)
        absent = [c for c, b in zip(truth.concepts, truth.boxes, strict=True) if not b]
        assert absent and not set(absent) & set(named)
        assert len(set(truth.phrases)) == len(truth.phrases)
        assert not any(mark in p for p in truth.phrases for mark in ".?")
        positions |= {i for i, b in enumerate(truth.boxes) if b}
    assert len(positions) > 3, "the phrases that are there must not always come first"


def test_labels_point_at_their_phrase_with_centre_boxes():
    truth = Grounding(("a dog", "a fox"), ("dog", "fox"), ((), ((0.2, 0.1, 0.6, 0.5), (0.0, 0.0, 1.0, 0.5))))
    labels = detector_data._labels(truth)
    assert labels["class_labels"].tolist() == [1, 1]
    assert torch.allclose(labels["boxes"], torch.tensor([[0.4, 0.3, 0.4, 0.4], [0.5, 0.25, 1.0, 0.5]]))


def test_a_picture_without_objects_costs_what_its_false_boxes_do(tiny):
    """A large batch has one now and then: nothing to match, and no index of the wrong kind."""
    model, processor = tiny
    batch = batch_of(processor, 3)
    empty = detector_data._labels(Grounding(("a fox",), ("fox",), ((),)))
    assert empty["class_labels"].dtype == torch.long and empty["boxes"].shape == (0, 4)
    loss = detector_loss(model, Batch(batch.inputs, [*batch.labels[:2], empty], batch.concepts))
    assert torch.isfinite(loss) and loss != detector_loss(model, batch)


def test_the_loss_of_a_batch_is_that_of_its_members(tiny):
    """Fails with transformers' own lookup of label maps from the third image on."""
    model, processor = tiny
    batch = batch_of(processor, 5)
    counts = [len(label["boxes"]) for label in batch.labels]
    with torch.no_grad():
        whole = detector_loss(model, batch, alignment=0.0)
        parts = [detector_loss(model, single(batch, i), alignment=0.0) for i in range(5)]
    expected = sum(n * part for n, part in zip(counts, parts, strict=True)) / sum(counts)
    assert torch.allclose(whole, expected, rtol=1e-4)


def test_the_loss_reaches_every_parameter(tiny):
    """Fails with the model's `labels` path, which leaves the proposal heads without a gradient."""
    model, processor = build_detector(TINY)
    batch = batch_of(processor, 4)
    # Offsets and box heads start at zero, and what feeds them gets its first gradient a step later.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(4):
        optimizer.step()
        optimizer.zero_grad()
        detector_loss(model, batch).backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []


def test_alignment_prefers_the_right_phrase(tiny):
    batch = batch_of(tiny[1], 2)
    maps = build_label_maps(torch.zeros(batch.inputs["input_ids"].shape), batch.inputs["input_ids"])
    length, width = batch.inputs["input_ids"].shape[1], 64
    phrases = torch.nn.functional.one_hot(torch.arange(sum(map(len, maps))), width).float()
    text = torch.stack(
        [m[:, :length].float().T @ p for m, p in zip(maps, phrases.split([len(m) for m in maps]), strict=True)]
    )
    right = torch.zeros(2, 84, width)  # 8 x 8, 4 x 4 and 2 x 2 cells
    for i, label in enumerate(batch.labels):
        right[i] += phrases.split([len(m) for m in maps])[i][label["class_labels"]].sum(0)
    wrong = right.roll(1, 0)
    assert alignment_loss(right, text, maps, batch) < 0.5 * alignment_loss(wrong, text, maps, batch)


def test_it_learns_a_batch_by_heart():
    model, processor = build_detector(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    batch, losses = batch_of(processor, 4), []
    for _ in range(60):
        losses.append(detector_loss(model, batch))
        optimizer.zero_grad()
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert losses[-1] < 0.4 * losses[0]


def test_the_saved_folder_loads_through_the_auto_classes(tiny, tmp_path):
    recipe = detector.DetectorRecipe(TINY)
    recipe.module.eval()
    recipe.save(tmp_path)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    image = scenes.compose("any").image
    ours = detector_data.prompt_inputs(recipe.processor, [image], [["a fox", "a big dog"]])
    theirs = processor(images=[image], text=[["a fox", "a big dog"]], return_tensors="pt")
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    with torch.no_grad():
        a, b = recipe.module(**ours), model(**theirs)
    assert torch.allclose(a.logits.sigmoid(), b.logits.sigmoid(), atol=1e-6)
    assert torch.allclose(a.pred_boxes, b.pred_boxes, atol=1e-6)


def test_any_image_becomes_the_models_square(tiny):
    inputs = detector_data.prompt_inputs(tiny[1], [np.zeros((50, 90, 3), np.uint8)], [["a fox"]])
    assert inputs["pixel_values"].shape == (1, 3, 64, 64) and inputs["pixel_mask"].all()


def test_average_precision_by_hand():
    scores, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert detector_data.average_precision(scores, correct, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert detector_data.average_precision(scores, correct, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert detector_data.average_precision(scores, ~correct, 2) < 0.6


@pytest.mark.parametrize(("shift", "ap50"), [(0.0, 1.0), (0.9, 0.0)])
def test_metrics_of_a_known_detector(tiny, monkeypatch, shift, ap50):
    """A detector that knows the truth, its boxes moved by `shift`."""
    evaluated = [scenes.compose(f"metrics-{i}") for i in range(6)]
    queue = [
        detector_data.ground_truth(s, scenes.rng_for("evaluate", i), PromptConfig()) for i, s in enumerate(evaluated)
    ]

    def oracle(model, processor, inputs):
        results = []
        for truth in queue:
            boxes = [(i, box) for i, of_phrase in enumerate(truth.boxes) for box in of_phrase]
            scores = torch.zeros(len(truth.phrases), len(boxes))
            for query, (i, _) in enumerate(boxes):
                scores[i, query] = 0.9
            results.append((scores, torch.tensor([box for _, box in boxes]) + shift))
        return results

    monkeypatch.setattr(detector_data, "phrase_scores", oracle)
    figures = detector_data.detector_metrics(*tiny, evaluated)
    assert figures["ap50"] == pytest.approx(ap50) and figures["recall"] == pytest.approx(ap50)
