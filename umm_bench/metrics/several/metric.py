"""Several subjects: is each one there, and is it itself or something of another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curation.config import BuildConfig
from curation.errors import UserError as CurationError
from curation.grounding import Grounder, load_grounder
from curation.records import Box
from curation.vision.crops import pixel_edges
from umm_bench.base import model_fingerprint, resolve_model
from umm_bench.errors import UserError
from umm_bench.images import open_image, square
from umm_bench.methods import Case, Subject
from umm_bench.metrics.base import Score, ScoredSample, Unusable
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.metrics.several.calibration import MOST_CASES, Calibration
from umm_bench.metrics.several.decoder import Decoder
from umm_bench.metrics.several.labels import Crop, Verdict, label_subjects
from umm_bench.metrics.several.places import Place, cleaned, find
from umm_bench.metrics.several.references import References, Seen, cut, embed, pictures, shrunk, side_of
from umm_bench.seeding import digest, path_digest
from umm_bench.suites.base import Suite

EITHER = 0.8  # of a place's best score, what another noun must have there to be meant as well
NEVER = 1e3


@dataclass(frozen=True)
class SeveralConfig:
    """`model`: "mini", a folder or a hub id of an image encoder, e.g. facebook/dino-vits16. `detector`: "mini", a
    folder or a hub id of a GroundingDINO, whose boxes count from `box_threshold`. `vae`: "mini", a folder or a hub id
    of the Stable Diffusion whose VAE decodes what is generated; with "none", references are taken only as they are.
    """

    model: str = "mini"
    detector: str = "mini"
    vae: str = "mini"
    box_threshold: float = 0.3


class Several:
    """1 for a subject that is there and itself, else 0, with its label (see `labels`) and the evidence.

    A subject whose class is found nowhere is missing: it counts as 0, and the whole image takes nobody's place.
    """

    name = "several"
    config_class = SeveralConfig
    subjects = (2, None)
    like = "dino"

    def __init__(self, config: SeveralConfig, suite: Suite) -> None:
        if not 0 < config.box_threshold < 1:
            raise UserError(f"several.box_threshold must be between 0 and 1, not {config.box_threshold}")
        self.config = config
        self.encoder = vision_encoder(config.model)
        self.location = resolve_model(config.detector, "detector")
        self.decoder = None if config.vae == "none" else Decoder(config.vae)
        self.weights: Sequence[Path] = [*self.encoder.weights, *(self.decoder.weights if self.decoder else ())]
        if Path(self.location).is_dir():
            self.weights = [*self.weights, Path(self.location)]
        found = model_fingerprint(self.location)[:8] if Path(self.location).is_dir() else self.location
        cases = suite.pairs()[:MOST_CASES]
        paths = [path for case in cases for subject in case.subjects for path in pictures(subject)]
        files = [path_digest(path) if path.is_file() else "missing" for path in dict.fromkeys(paths)]
        vae = self.decoder.label if self.decoder else "none"
        self.protocol = (
            f"several/1: detected crops against references at the crop's size, {self.encoder.label}, "
            f"boxes from {config.box_threshold:g} by {found}, VAE {vae}, "
            f"calibrated on {suite.name}@{digest(files, length=8)}"
        )
        self.references = References(self.encoder, self._find_reference, self.decoder)
        self.calibration = Calibration(self.references, cases)

    @cached_property
    def grounder(self) -> Grounder:
        try:
            return load_grounder(BuildConfig(box_threshold=self.config.box_threshold), self.location)
        except CurationError as error:
            raise Unusable(str(error).replace("--detector", "several.detector", 1)) from error

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        # One at a time: a batch would change the last digits of its members.
        return [score for sample in batch for score in self._score(sample)]

    def _find_reference(self, path: Path, noun: str) -> Box | None:
        ((boxes,),) = self.grounder.ground([open_image(path)], [[noun]])
        return boxes[0] if boxes else None

    def _score(self, sample: ScoredSample) -> list[Score]:
        case = sample.case
        image = open_image(sample.path)
        nouns = [cleaned(noun) for noun in case.class_nouns]
        (places,) = find(self.grounder, [image], [nouns])
        crops = [self._crop(image, place, case) for place in places]
        own = assign(places, crops, nouns)
        doubled = [None if n is not None else second(i, own, crops, nouns) for i, n in enumerate(own)]
        verdicts = label_subjects(
            [None if n is None else crops[n] for n in own],
            nouns,
            [None if at is None else at[0] for at in doubled],
        )
        rows = []
        for i, (n, verdict) in enumerate(zip(own, verdicts, strict=True)):
            twice = doubled[i]
            at = n if twice is None else twice[1]
            there = None if at is None else (places[at], crops[at])
            rows.append(self._row(sample, i, verdict, there, image))
        return rows

    def _crop(self, image: Image.Image, place: Place, case: Case) -> Crop:
        crop = cut(image, place.box)
        side = side_of(crop)
        x_D = embed(self.encoder, [square(shrunk(crop, side))])[0]
        rows = {}
        for seen in (Seen(side), Seen(side, decoded=True))[: 1 if self.decoder is None else 2]:
            of = [self.references.of(subject, seen) for subject in case.subjects]
            rows[seen] = np.array([float((references @ x_D).mean()) for references in of])
        seen = max(rows, key=lambda seen: rows[seen].max())  # a finished picture need not be a generator's
        return Crop(rows[seen], self.references.matrix(case.subjects, seen), self.calibration.threshold(seen, case))

    def _row(
        self,
        sample: ScoredSample,
        i: int,
        verdict: Verdict,
        there: tuple[Place, Crop] | None,
        image: Image.Image,
    ) -> Score:
        subjects = sample.case.subjects
        ids = [subject.id for subject in subjects]
        matrix = there[1].references if there else self.references.matrix(subjects, Seen(side_of(image)))
        evidence: dict[str, Any] = {
            "label": verdict.label,
            "box": list(pixel_edges(there[0].box, image.width, image.height)) if there else None,
            "detected": round(there[0].box.score, 4) if there else None,
            "row": dict(zip(ids, there[1].row.round(4).tolist(), strict=True)) if there else {},
            "references": {
                one: dict(zip(ids, row, strict=True)) for one, row in zip(ids, matrix.round(4).tolist(), strict=True)
            },
            "margin": None if verdict.margin is None else round(verdict.margin, 4),
        }
        if verdict.kept is not None and verdict.gained is not None and there is not None:
            evidence |= {"kept": round(verdict.kept, 4), "gained": round(verdict.gained, 4)}
            evidence["threshold"] = round(there[1].threshold, 4)
        if verdict.rival is not None:
            evidence["rival"] = ids[verdict.rival]
        says = explain(subjects[i], verdict, evidence)
        return Score(sample.key, self.name, self.protocol, float(verdict.label == "right"), says, evidence, ids[i])


def assign(places: Sequence[Place], crops: Sequence[Crop], nouns: Sequence[str]) -> list[int | None]:
    """Which place is whose, one to one: the number of each subject's place, None for one that has none.

    A place is for subjects of its noun; for those of another noun too where the detector thinks nearly as much of it,
    or where it looks just like one of them. Among these the looks decide, not the detector's order.
    """
    from scipy.optimize import linear_sum_assignment  # here: a run that is finished scores nothing

    cost = np.full((len(nouns), len(places)), NEVER)
    for i, noun in enumerate(nouns):
        for n, place in enumerate(places):
            claim = 1.0 if crops[n].is_right(i) else place.scores.get(noun, 0.0) / place.scores[place.noun]
            if claim >= EITHER:
                cost[i, n] = -claim - crops[n].row[i]
    found: list[int | None] = [None] * len(nouns)
    for i, n in zip(*linear_sum_assignment(cost), strict=True):
        if cost[i, n] < NEVER:
            found[i] = int(n)
    return found


def second(i: int, own: Sequence[int | None], crops: Sequence[Crop], nouns: Sequence[str]) -> tuple[int, int] | None:
    """The subject of another class that is there once more while i is not there, and the place where it is."""
    for n, crop in enumerate(crops):
        for j, noun in enumerate(nouns):
            if n not in own and own[j] is not None and noun != nouns[i] and crop.is_right(j):
                return j, n
    return None


def explain(subject: Subject, verdict: Verdict, evidence: dict[str, Any]) -> str:
    """The label in a sentence."""
    noun, rival = subject.class_noun, evidence.get("rival")
    if verdict.label == "missing":
        return f"no {noun} is found"
    if verdict.kept is None or verdict.gained is None:
        return f"no {noun} is found, and {rival} is there twice"
    kept, gained = (f"{min(max(share, 0.0), 1.0):.0%}" for share in (verdict.kept, verdict.gained))
    measure = f"it keeps {kept} of what sets it apart, and has {gained} of what sets {rival} apart"
    says = {
        "right": f"the {noun} is itself: {measure}",
        "drift": f"the {noun} is another one, and not {rival}: {measure}",
        "swap": f"the {noun} looks like {rival}, which looks like it: {measure}",
        "dominance": f"the {noun} looks like {rival}: {measure}",
        "blending": f"the {noun} has something of {rival}: {measure}",
    }
    return says[verdict.label]
