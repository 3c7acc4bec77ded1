"""DreamBench++ (2406.16855): 150 subjects of one picture each, animals, humans, objects and styles, 9 prompts each."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.suites.base import Check
from umm_bench.suites.reading import is_picture, numbered_lines

_KINDS = {"animal": "live", "human": "live", "style": "style"}
_STYLES = range(4, 7)
"""Of a subject's nine captions: four photographic, three in a style, two imaginative."""


class DreamBenchPlus:
    """`path` is the published `data` folder: images/CATEGORY/NN.jpg, and captions/CATEGORY/NN.txt with the subject's
    words in its first line and a prompt in each other. Subjects are named as its authors' code names them:
    live_subject_animal_00_kitten.

    UserError when it is not. A picture without captions, captions without a picture, and a prompt without the subject's
    words in it are left out (`omitted`).
    """

    name = "dreambench_plus"
    version = 1
    truth: Sequence[Path] = ()

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            raise UserError(f"suite '{self.name}' needs --suite-path: the published folder with images/ and captions/")
        for part in ("images", "captions"):
            if not (path / part).is_dir():
                raise UserError(f"{path} is no DreamBench++ folder: {part}/ is missing")
        self.path = path
        self.omitted: list[str] = []
        self._subjects: dict[str, Subject] = {}
        self._prompts: dict[str, list[Prompt]] = {}
        found = {p.relative_to(path / "images").with_suffix(""): p for p in path.glob("images/**/*") if is_picture(p)}
        captions = {p.relative_to(path / "captions").with_suffix(""): p for p in path.glob("captions/**/*.txt")}
        self.omitted += [f"{found[name]}: it has no captions" for name in sorted(found.keys() - captions.keys())]
        self.omitted += [f"{captions[name]}: it has no picture" for name in sorted(captions.keys() - found.keys())]
        for name in sorted(found.keys() & captions.keys()):
            self._add(found[name], captions[name])
        if not self._subjects:
            raise UserError(f"{path} has no picture with captions")

    def _add(self, picture: Path, captions: Path) -> None:
        lines = numbered_lines(captions)
        if len(lines) < 2:
            self.omitted.append(f"{captions}: expected the subject's words and a prompt in each further line")
            return
        noun, category = lines[0][1], picture.parent.name
        group = f"live_subject_{category}" if category in ("animal", "human") else category
        name = f"{group}_{picture.stem}_{noun.lower().replace(' ', '_')}"
        self._subjects[name] = Subject(name, noun, (picture,), _KINDS.get(category, "object"))
        self._prompts[name] = []
        for index, (number, caption) in enumerate(lines[1:]):
            # the first place: a few captions say the words again
            template, places = re.subn(
                rf"(?<!\w){re.escape(noun)}(?!\w)", "{subject}", caption, count=1, flags=re.IGNORECASE
            )
            if places == 0:
                self.omitted.append(f"{captions}, line {number}: '{noun}' is not in it: {caption}")
                continue
            kind = "style" if index in _STYLES else "recontextualise"
            self._prompts[name].append(Prompt(f"caption-{index}", template, kind))

    def subjects(self) -> list[Subject]:
        return list(self._subjects.values())

    def pairs(self) -> list[Case]:
        return []

    def prompts(self, case: Case) -> list[Prompt]:
        return self._prompts[case.subject.id]

    def check(self, image: Image.Image, case: Case, prompt: Prompt) -> Check | None:
        return None

    def concept_counts(self) -> Mapping[str, int]:
        return {}
