"""Laws of the metrics, on small random models and pictures."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from curation.records import Box
from umm_bench.bench.statistics import jackknife_interval, mean_interval
from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.metrics.artefacts.blockiness import Blockiness, BlockinessConfig
from umm_bench.metrics.artefacts.sharpness import Sharpness, SharpnessConfig
from umm_bench.metrics.base import METRICS, ScoredSample
from umm_bench.metrics.clip_i import ClipI, ClipIConfig, ClipIInput
from umm_bench.metrics.clip_t import ClipT, ClipTConfig, ClipTOwn
from umm_bench.metrics.copy_paste import CopyPaste, CopyPasteConfig
from umm_bench.metrics.detection import Detector
from umm_bench.metrics.dino import Dino, DinoConfig, DinoCrop, DinoCropConfig, DinoInput
from umm_bench.metrics.diversity import Diversity, DiversityConfig
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.metrics.gallery_rank import GalleryRank, GalleryRankConfig
from umm_bench.metrics.masc.identity import Masc, MascConfig
from umm_bench.metrics.prior.cosine import PriorConfig, PriorCosine
from umm_bench.metrics.prior.fid import PriorFid
from umm_bench.metrics.prior.kid import PriorKid
from umm_bench.metrics.prior.sets import frechet_distance, kernel_distance
from umm_bench.suites.degrade import KINDS, degrade
from umm_bench.suites.mini import MiniSuite

PROMPT = Prompt("beach", "a {subject} on the beach", "recontextualise")


def noise(path, seed, size=32):
    """A picture with large shapes, so that small models tell one from another."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((size, size), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    return [noise(tmp_path / f"{number}.png", number) for number in range(6)]


@pytest.fixture
def encoder(world):
    return str(world / "encoder")


@pytest.fixture
def clip(world):
    return str(world / "clip")


@pytest.fixture
def boxes(monkeypatch):
    """What the detector finds, by the picture's name; nothing elsewhere."""
    found: dict[str, list[Box]] = {}
    monkeypatch.setattr(Detector, "boxes", lambda self, path, phrase: found.get(path.name, []))
    return found


def sample(path, references, held_out=(), key="k", **more):
    subject = Subject("fox", "fox", tuple(references), "live", tuple(held_out))
    return ScoredSample(key, path, Case((subject,)), PROMPT, 0, **more)


def value(metric, *samples):
    rows = [row for row in metric.score(list(samples)) if row.metric == metric.name]
    assert [row.protocol for row in rows] == [metric.protocol] * len(samples)
    return rows[0].value if len(samples) == 1 else [row.value for row in rows]


def test_each_metric_has_a_versioned_protocol_of_its_own():
    suite = MiniSuite()
    made = {name: METRICS.load(name)(METRICS.load(name).config_class(), suite) for name in METRICS.names()}
    assert all(metric.name == name for name, metric in made.items())
    assert all(metric.protocol.startswith(f"{name}/") for name, metric in made.items())
    assert len({metric.protocol for metric in made.values()}) == len(made)


@pytest.mark.parametrize("metric", [Dino, DinoInput, ClipI, ClipIInput])
def test_a_copy_of_the_only_reference_scores_1(metric, world, pictures, tmp_path):
    model = str(world / ("clip" if "clip" in metric.name else "encoder"))
    copy = tmp_path / "copy.png"
    Image.open(pictures[0]).save(copy, compress_level=0)
    assert value(metric(metric.config_class(model), None), sample(copy, pictures[:1])) == pytest.approx(1, abs=1e-6)


def test_copies_score_1_by_patches_and_crops_too(encoder, pictures, boxes):
    boxes[pictures[0].name] = [Box(0.25, 0.25, 0.75, 0.75, 0.9)]
    same = sample(pictures[0], pictures[:1])
    assert value(Masc(MascConfig(encoder), None), same) == pytest.approx(1, abs=1e-3)
    assert value(DinoCrop(DinoCropConfig(encoder), None), same) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("made", [lambda e, c: Dino(DinoConfig(e), None), lambda e, c: ClipI(ClipIConfig(c), None),
                                  lambda e, c: Masc(MascConfig(e), None)])  # fmt: skip
def test_the_order_of_references_changes_nothing(made, encoder, clip, pictures, boxes):
    metric, references = made(encoder, clip), pictures[1:]
    one, other = (sample(pictures[0], list_) for list_ in (references, references[::-1]))
    assert value(metric, one) == pytest.approx(value(metric, other), abs=1e-7)
    ceilings = [metric.ceiling(each.case.subject) for each in (one, other)]
    assert ceilings[0].value == pytest.approx(ceilings[1].value, abs=1e-7) and ceilings[0].pairs == ceilings[1].pairs
    split = sample(pictures[0], references[:2], references[2:])
    assert value(metric, split) == pytest.approx(value(metric, one), abs=1e-7)


def test_the_ceiling_is_over_pairs_of_different_pictures(encoder, pictures):
    metric = Dino(DinoConfig(encoder), None)
    subject = sample(pictures[0], pictures[:3], pictures[3:4]).case.subject
    images = vision_encoder(encoder).images(pictures[:4])
    cosines = [float(a @ b) for a, b in combinations(images, 2)]
    assert metric.ceiling(subject).pairs == 6
    assert metric.ceiling(subject).value == pytest.approx(np.mean(cosines), abs=1e-6) and max(cosines) < 0.9999
    assert metric.ceiling(replace(subject, references=subject.references[:1], held_out=())) is None
    first = DinoInput(DinoConfig(encoder), None).ceiling(subject)
    assert first.pairs == 3 and first.value == pytest.approx(np.mean(images[1:] @ images[0]), abs=1e-6)
    twice = Subject("fox", "fox", (pictures[0], pictures[0]))
    assert metric.ceiling(twice).pairs == 1 and metric.ceiling(twice).value == pytest.approx(1, abs=1e-6)


def test_the_ceiling_of_patches_is_over_both_ways(encoder, pictures, boxes):
    boxes[pictures[0].name] = [Box(0, 0, 0.5, 0.5, 0.9)]
    metric = Masc(MascConfig(encoder), None)
    ceiling = metric.ceiling(Subject("fox", "fox", tuple(pictures[:2])))
    ways = [value(metric, sample(a, [b])) for a, b in ((pictures[0], pictures[1]), (pictures[1], pictures[0]))]
    assert ceiling.pairs == 2 and ceiling.value == pytest.approx(np.mean(ways), abs=1e-6) and ways[0] != ways[1]
    assert metric.ceiling(Subject("fox", "fox", tuple(pictures[:1]))) is None


def test_crops_take_the_best_box_and_nothing_counts_as_0(encoder, pictures, boxes, tmp_path):
    drawn = Image.new("RGB", (64, 64), "white")
    drawn.paste(Image.open(pictures[0]), (32, 0))
    drawn.save(tmp_path / "drawn.png")
    metric, asked = DinoCrop(DinoCropConfig(encoder), None), sample(tmp_path / "drawn.png", pictures[:1])
    (row,) = metric.score([asked])
    assert (row.value, row.explanation) == (0, "no fox is found: counts as 0")
    boxes["drawn.png"] = [Box(0, 0.5, 0.5, 1, 0.9), Box(0.5, 0, 1, 0.5, 0.5)]
    (row,) = metric.score([asked])
    assert row.value == pytest.approx(1, abs=1e-6) and (row.metadata["crops"], row.metadata["best"]) == (2, 1)


def test_a_methods_own_words_are_compared_where_that_is_asked(clip, pictures):
    config = ClipTConfig(clip)
    own = sample(pictures[0], pictures[1:], method_prompt="a sks fox on the beach")
    plain = sample(pictures[0], pictures[1:], method_prompt="a fox on the beach")
    assert value(ClipT(config, None), own) == value(ClipT(config, None), plain) == value(ClipTOwn(config, None), plain)
    (row,) = ClipTOwn(config, None).score([own])
    assert row.metadata["text"] == "a sks fox on the beach" and row.value != value(ClipT(config, None), own)


def test_copy_paste_is_what_the_given_pictures_are_nearer_than_the_held_out(encoder, pictures):
    metric = CopyPaste(CopyPasteConfig(encoder), None)
    one = value(metric, sample(pictures[0], pictures[:2], pictures[2:4]))
    assert one > 0 and value(metric, sample(pictures[0], pictures[2:4], pictures[:2])) == pytest.approx(-one, abs=1e-6)
    assert value(metric, sample(pictures[0], pictures[1:3], pictures[1:3])) == 0
    assert "no picture of fox is held out" in metric.why_not(sample(pictures[0], pictures[1:3]))
    assert metric.why_not(sample(pictures[0], pictures[:1], pictures[1:2])) is None


def test_plain_sds_own_image_is_at_no_distance_from_the_prior(encoder, pictures):
    metric = PriorCosine(PriorConfig(encoder), None)
    values = value(metric, *(sample(p, pictures[2:], floor=pictures[0], key=p.name) for p in pictures[:2]))
    assert values[0] == pytest.approx(1, abs=1e-6) and values[1] < 0.9999
    assert "plain SD's image" in metric.why_not(sample(pictures[0], pictures[1:]))


def test_diversity_is_0_for_one_image_again_and_again(encoder, pictures):
    metric = Diversity(DiversityConfig(encoder), None)
    assert value(metric, sample(pictures[0], pictures[1:], earlier=(pictures[0],))) == pytest.approx(0, abs=1e-6)
    images = vision_encoder(encoder).images(pictures[:3])
    expected = 1 - np.mean([images[0] @ images[2], images[1] @ images[2]])
    apart = value(metric, sample(pictures[2], pictures[3:], earlier=tuple(pictures[:2])))
    assert apart == pytest.approx(expected, abs=1e-6) and apart > 0.001
    assert metric.why_not(sample(pictures[0], pictures[1:])) is not None


class Zoo:
    name, version = "zoo", 1

    def __init__(self, pictures):
        names = [("owl", "owl", "live"), ("cup", "cup", "object"), ("fox-2", "fox", "live"), ("fox", "fox", "live")]
        self.known = [
            Subject(name, noun, (path,), kind)
            for (name, noun, kind), path in zip(names, [*pictures[1:4], pictures[0]], strict=True)
        ]

    def subjects(self):
        return self.known


def test_a_copy_is_first_in_its_gallery_and_look_alikes_come_first(encoder, pictures):
    zoo = Zoo(pictures)
    metric = GalleryRank(GalleryRankConfig(encoder), zoo)
    asked = sample(pictures[0], pictures[:1])
    assert [one.id for one in metric.gallery(asked, asked.case.subject)] == ["fox-2", "owl", "cup"]
    few = GalleryRank(GalleryRankConfig(encoder, look_alikes=1), zoo)
    assert [one.id for one in few.gallery(asked, asked.case.subject)] == ["fox-2"]
    ranks = {row.metric: row.value for row in metric.score([asked])}
    assert ranks == {"gallery_rank": 1, "gallery_reciprocal_rank": 1}
    other = {row.metric: row.value for row in metric.score([sample(pictures[2], pictures[:1])])}
    assert other["gallery_rank"] > 1 and other["gallery_reciprocal_rank"] == 1 / other["gallery_rank"]
    assert metric.protocol != GalleryRank(GalleryRankConfig(encoder), Zoo(pictures[::-1])).protocol
    with pytest.raises(ValueError, match="look_alikes must be at least 1"):
        GalleryRankConfig(look_alikes=0)


def test_equals_in_a_gallery_count_before_the_subject_and_the_other_of_a_pair_not_at_all(encoder, pictures):
    zoo = Zoo([pictures[0]] * 4)
    metric = GalleryRank(GalleryRankConfig(encoder), zoo)
    assert value(metric, sample(pictures[1], pictures[:1])) == 4
    fox, owl = zoo.known[3], zoo.known[0]
    pair = ScoredSample("k", pictures[0], Case((fox, owl)), Prompt("p", "a {subject_1} and a {subject_2}", "x"), 0)
    assert [one.id for one in metric.gallery(pair, fox)] == ["fox-2", "cup"]
    assert [row.subject for row in metric.score([pair]) if row.metric == "gallery_rank"] == ["fox", "owl"]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_kernel_distance_leaves_no_member_to_be_compared_with_its_own_pair():
    random = np.random.default_rng(0)
    ours, theirs = unit(random.normal(size=(12, 5)) + 0.5), unit(random.normal(size=(12, 5)))

    def mean_of_others(a, b):
        kernel = (a.astype(float) @ b.astype(float).T + 1) ** 3
        return (kernel.sum() - np.trace(kernel)) / (12 * 11)

    expected = mean_of_others(ours, ours) + mean_of_others(theirs, theirs) - 2 * mean_of_others(ours, theirs)
    assert kernel_distance(ours, theirs) == pytest.approx(expected, abs=1e-9)
    assert kernel_distance(ours[::-1], theirs[::-1]) == pytest.approx(expected, abs=1e-9)
    assert kernel_distance(ours, ours) == pytest.approx(0, abs=1e-9) and expected > 0.05


@pytest.mark.parametrize("alike", [0.0, 3.0])
def test_the_kernel_distance_is_0_on_average_for_one_distribution_however_alike_pairs_are(alike):
    found = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        common = alike * random.normal(size=(10, 5))
        found.append(kernel_distance(*(unit(common + random.normal(size=(10, 5))) for _ in range(2))))
    assert abs(np.mean(found)) < 3 * np.std(found) / len(found) ** 0.5 < 0.1


def test_the_kernel_distance_leaves_random_numbers_alone():
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    kernel_distance(unit(np.ones((3, 2))), unit(np.ones((3, 2))))
    assert torch.rand(1) == expected


def test_the_frechet_distance_is_that_of_two_gaussians():
    random = np.random.default_rng(1)
    ours, theirs = random.normal(size=(300, 3)) * 2 + 1, random.normal(size=(300, 3))
    (a, b), (m, n) = ((np.cov(x.T) for x in (ours, theirs)), (x.mean(axis=0) for x in (ours, theirs)))
    roots = np.sqrt(np.linalg.eigvals(a @ b).real)
    expected = ((m - n) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots.sum()
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", [PriorKid, PriorFid])
def test_a_set_leaves_out_what_it_cannot_use_and_is_at_0_from_itself(metric, encoder, pictures, tmp_path):
    made = metric(PriorConfig(encoder), None)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = [sample(pictures[n], [pictures[5]], floor=pictures[n + 1], key=str(n)) for n in range(4)]
    bad = [
        sample(tmp_path / "broken.png", [pictures[5]], floor=pictures[0]),
        sample(pictures[0], [pictures[5]]),
    ]
    assert made.usable([*bad, *good]) == good
    assert made.score_set([replace(one, floor=one.path) for one in good]) == pytest.approx(0, abs=1e-5)
    assert abs(made.score_set(good)) > 1e-4 and made.score_set(good[:3]) is None


def test_the_jackknife_of_a_mean_is_the_interval_of_the_clusters_means():
    values, clusters = [1.0, 2.0, 4.0, 8.0, 3.0, 5.0], list("aabbcc")
    found = jackknife_interval(values, clusters, lambda members: float(np.mean(members)))
    expected = mean_interval([1.5, 6.0, 4.0], list("abc"))
    assert (found.mean, found.samples, found.clusters) == (pytest.approx(23 / 6), 6, 3)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert jackknife_interval(values[:4], clusters[:4], lambda members: float(np.mean(members))).low is None
    assert jackknife_interval(values, clusters, lambda members: None) is None
    few = jackknife_interval(values, clusters, lambda members: 1.0 if len(members) > 4 else None)
    assert (few.mean, few.low, few.high) == (1, None, None)


@pytest.fixture(scope="module")
def subject():
    """A drawing of the mini suite: what a harm does to it is known, as it is done here."""
    return MiniSuite().subjects()[0]


def shown(subject, kind, folder):
    paths = tuple(folder / f"{kind}-{path.name}" for path in subject.references)
    for number, (path, worse) in enumerate(zip(subject.references, paths, strict=True)):
        degrade(Image.open(path).convert("RGB"), kind, number).save(worse)
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_sharpness_and_its_transfer_tell_each_harm(subject, tmp_path, kind):
    metric, worse = Sharpness(SharpnessConfig(), None), shown(subject, kind, tmp_path)
    alone = replace(subject, references=subject.references[:1])

    def rows(path):
        asked = ScoredSample("k", path, Case((alone,)), PROMPT, 0, shown=(worse[:1],))
        return {row.metric: row.value for row in metric.score([asked])}

    clean, harmed = rows(subject.references[0]), rows(worse[0])
    assert clean["sharpness"] == 0
    if kind in ("blur", "lowres"):
        assert harmed["sharpness"] < -1
    if kind == "noise":
        assert harmed["sharpness"] > 1
    if kind != "jpeg":
        assert clean["sharpness_transfer"] == pytest.approx(0) and harmed["sharpness_transfer"] == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_jpeg_has_a_grid(subject, tmp_path, kind):
    metric, worse = Blockiness(BlockinessConfig(), None), shown(subject, kind, tmp_path)
    harmed = [
        {row.metric: row.value for row in metric.score([
            ScoredSample("k", path, Case((subject,)), PROMPT, 0, shown=(worse,))
        ])}
        for path in worse
    ]  # fmt: skip
    mean = np.mean([row["blockiness"] for row in harmed])
    assert (mean > 0.5) == (kind == "jpeg")
    assert ("blockiness_transfer" in harmed[0]) == (kind == "jpeg")
    if kind == "jpeg":
        assert np.mean([row["blockiness_transfer"] for row in harmed]) == pytest.approx(1)


def test_without_a_harm_there_is_nothing_that_could_come_through(subject):
    clean = ScoredSample("k", subject.references[0], Case((subject,)), PROMPT, 0)
    assert [row.metric for row in Sharpness(SharpnessConfig(), None).score([clean])] == ["sharpness"]
    same = replace(clean, shown=(subject.references,))
    assert [row.metric for row in Sharpness(SharpnessConfig(), None).score([same])] == ["sharpness"]


def test_a_picture_that_cannot_be_read_names_itself(encoder, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(pictures[0].read_bytes()[:60])
    with pytest.raises(UserError, match=r"broken\.png cannot be read as an image"):
        Dino(DinoConfig(encoder), None).score([sample(tmp_path / "broken.png", pictures)])


def test_on_the_mini_suite_patches_tell_a_subject_from_others():
    """Each drawing is found again in another picture of itself sooner than in any of another subject."""
    metric = Masc(MascConfig(), MiniSuite())
    subjects = MiniSuite().subjects()[:5]
    for subject in subjects:
        alone = replace(subject, references=subject.references[:1])
        own = value(metric, ScoredSample("k", subject.references[1], Case((alone,)), PROMPT, 0))
        others = [
            value(metric, ScoredSample("k", other.references[1], Case((alone,)), PROMPT, 0))
            for other in subjects
            if other is not subject
        ]
        assert own > max(others)
