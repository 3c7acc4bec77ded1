"""Pictures that were finished elsewhere: which file of a folder is which sample, and which files are none.

Three layouts are read: SUBJECT/PROMPT/INDEX.png (a pair is FIRST+SECOND); that of DreamBench++,
tgt_image/SUBJECT/PROMPT_INDEX.jpg with the prompt's number; and that of Kosmos-G, all in one folder,
SUBJECT+REFERENCE+NUMBER+PROMPT.png with the prompt's text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umm_bench.methods import Case, Prompt
from umm_bench.registry import did_you_mean
from umm_bench.suites.base import Suite
from umm_bench.suites.reading import is_picture

Place = tuple[str, str, int]
"""Case id, prompt id, index."""


@dataclass
class Found:
    """`files` by what they show; `foreign` are the others, by reason and relative to the folder."""

    files: dict[Place, Path] = field(default_factory=dict)
    foreign: dict[str, list[str]] = field(default_factory=dict)

    def told(self) -> list[str]:
        """A line for each reason, with its count and an example."""
        return [
            f"{len(names)} {'file' if len(names) == 1 else 'files'} (as {names[0]}): {reason}"
            for reason, names in sorted(self.foreign.items())
        ]


class _Foreign(Exception):
    """The message says why a file is no sample."""


@dataclass(frozen=True)
class PicturesConfig:
    """Nothing to set: the pictures are there."""


def find_pictures(folder: Path, suite: Suite, wanted: Mapping[str, Sequence[Prompt]], images_per_prompt: int) -> Found:
    """The pictures of `folder` by sample, those that are not asked for by (case id, prompts) among the foreign ones."""
    cases = {case.id: case for case in [*(Case((subject,)) for subject in suite.subjects()), *suite.pairs()]}
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p.relative_to(folder)))
    read = _DreamBenchPlus if (folder / "tgt_image").is_dir() else _KosmosG if _is_flat(folder) else _Own
    layout, found = read(folder, cases, suite), Found()
    for file, place in layout.places(files, found):
        case, prompt, index = place
        if prompt not in [asked.id for asked in wanted.get(case, ())] or index >= images_per_prompt:
            _add(found, "not asked for by this run", file, folder)
        elif place in found.files:
            _add(found, "a second picture of the same sample", file, folder)
        else:
            found.files[place] = file
    return found


def _add(found: Found, reason: str, file: Path, folder: Path) -> None:
    found.foreign.setdefault(reason, []).append(file.relative_to(folder).as_posix())


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_flat(folder: Path) -> bool:
    return any(is_picture(file) and file.stem.count("+") >= 3 for file in folder.iterdir())


class _Own:
    """SUBJECT/PROMPT/INDEX.png"""

    def __init__(self, folder: Path, cases: dict[str, Case], suite: Suite) -> None:
        self.folder, self.cases, self.suite = folder, cases, suite
        self._prompts: dict[str, list[Prompt]] = {}

    def places(self, files: Sequence[Path], found: Found) -> Iterator[tuple[Path, Place]]:
        for file in files:
            try:
                if not is_picture(file):
                    raise _Foreign("no picture")
                yield file, self.place(file)
            except _Foreign as reason:
                _add(found, str(reason), file, self.folder)

    def place(self, file: Path) -> Place:
        parts = file.relative_to(self.folder).parts
        if len(parts) != 3:
            raise _Foreign("not named SUBJECT/PROMPT/INDEX")
        case, prompt = self.case(parts[0]), parts[1]
        known = [known.id for known in self.prompts(case)]
        if prompt not in known:
            raise _Foreign(f"no prompt '{prompt}' for such a subject{did_you_mean(prompt, known)}")
        return case, prompt, _number(file.stem)

    def case(self, name: str) -> str:
        if name not in self.cases:
            raise _Foreign(f"no subject or pair '{name}' in the suite{did_you_mean(name, list(self.cases))}")
        return name

    def prompts(self, case: str) -> list[Prompt]:
        if case not in self._prompts:
            self._prompts[case] = self.suite.prompts(self.cases[case])
        return self._prompts[case]


class _DreamBenchPlus(_Own):
    """tgt_image/SUBJECT/PROMPT_INDEX.jpg; beside it are copies of the references and the prompts."""

    def places(self, files: Sequence[Path], found: Found) -> Iterator[tuple[Path, Place]]:
        target = self.folder / "tgt_image"
        yield from super().places([file for file in files if file.is_relative_to(target)], found)

    def place(self, file: Path) -> Place:
        parts = file.relative_to(self.folder / "tgt_image").parts
        numbers = file.stem.split("_")
        if len(parts) != 2 or len(numbers) != 2:
            raise _Foreign("not named tgt_image/SUBJECT/PROMPT_INDEX")
        case, number, index = self.case(parts[0]), _number(numbers[0]), _number(numbers[1])
        prompts = self.prompts(case)
        # captions that the suite leaves out keep their numbers
        ids = [p.id for p in prompts if p.id == f"caption-{number}"] or [
            p.id for i, p in enumerate(prompts) if i == number and not p.id.startswith("caption-")
        ]
        if not ids:
            raise _Foreign(f"no prompt number {number} for such a subject")
        return case, ids[0], index


class _KosmosG(_Own):
    """SUBJECT+REFERENCE+NUMBER+PROMPT.png: the index is the place among the files of the same subject and prompt."""

    def places(self, files: Sequence[Path], found: Found) -> Iterator[tuple[Path, Place]]:
        in_order: dict[tuple[str, str], list[tuple[str, int, Path]]] = {}
        for file, (case, prompt, number) in super().places(files, found):
            in_order.setdefault((case, prompt), []).append((file.stem.split("+")[1], number, file))
        for (case, prompt), entries in in_order.items():
            for index, (_, _, file) in enumerate(sorted(entries)):
                yield file, (case, prompt, index)

    def place(self, file: Path) -> Place:
        parts = file.stem.split("+", 3)
        if len(parts) != 4 or file.parent != self.folder:
            raise _Foreign("not named SUBJECT+REFERENCE+NUMBER+PROMPT")
        name, _, number, text = parts
        case = self.case(name)
        nouns = self.cases[case].class_nouns
        for prompt in self.prompts(case):
            if _words(prompt.text(nouns)) == _words(text):
                return case, prompt.id, _number(number)
        raise _Foreign(f"no prompt '{text}' for such a subject")


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _Foreign(f"'{text}' is no number")
    return int(text)


def _words(text: str) -> list[str]:
    """Without what a file's name may lack: letter case, punctuation, the "n" of "an"."""
    return ["a" if word == "an" else word for word in re.findall(r"\w+", text.lower())]
