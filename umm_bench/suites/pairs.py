"""Which subjects of a suite are drawn two in a picture, where the suite itself has no list: a fixed, seeded one."""

from collections.abc import Sequence
from itertools import chain, combinations, zip_longest

from umm_bench.methods import Case, Subject
from umm_bench.seeding import digest

KINDS = ("object-object", "live-live", "live-object", "same class")


def kind_of(pair: Case) -> str:
    """One of KINDS, or of a style and another, e.g. "object-style"."""
    first, second = pair.subjects
    if first.class_noun == second.class_noun:
        return "same class"
    return "-".join(sorted((first.kind, second.kind)))


def seeded_pairs(suite: str, subjects: Sequence[Subject]) -> list[Case]:
    """Every pair of two subjects once: one of each kind in turn, so that the first N cover the kinds evenly.

    The order, in a pair too, is that of digests of the names: a subject more or less changes no other pair.
    """
    queues: dict[str, list[tuple[str, Case]]] = {kind: [] for kind in KINDS}
    for two in combinations(subjects, 2):
        drawn = digest("pair", suite, sorted(subject.id for subject in two))
        ordered = sorted(two, key=lambda subject: digest("place", drawn, subject.id))
        pair = Case(tuple(ordered))
        queues.setdefault(kind_of(pair), []).append((drawn, pair))
    turns = zip_longest(*(sorted(queue, key=lambda entry: entry[0]) for queue in queues.values()))
    return [entry[1] for entry in chain.from_iterable(turns) if entry]
