"""What judges say of the made-up run: a trial of metrics, a replay, and voters whose minds are known."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from random import Random

from benchmarks.synthetic_run import METHODS
from figures import Figure
from umm_bench.bench.judging.ballots import Ballot, draw_ballot
from umm_bench.bench.keeping.judges import keep_replay, keep_trial
from umm_bench.bench.store import OpenAnswers, Store

HOSTILE = "</script><img src=x onerror=alert(1)>"
TRIAL = [
    Figure(
        "validate.failure_label.accuracy", 0.875, "share", True, 0.85, "95% 0.850 to 0.900, 64 subjects of 32 pairs"
    ),
    Figure("validate.failure_label.swap", 0.4, "share", True, None, f"95% 0.300 to 0.500, {HOSTILE}"),
    Figure("validate.failure_label.confusion.swap.swap", 4, "subjects", True),
    Figure("validate.failure_label.confusion.swap.drift", 6, "subjects", False),
    Figure("validate.AUC.dino", 0.81, "chance", True, None, "95% 0.780 to 0.840, right against lost, 24 subjects"),
    Figure("validate.rank.dino", 0.62, "rho", True, None, "95% 0.600 to 0.640, Spearman's"),
    Figure("validate.self.copied.dino", 0.1, "share", True, None, "95% 0.020 to 0.300, itself above a copy"),
    Figure("validate.AUC.masc", 0.9, "chance", True, None, "95% 0.880 to 0.920, right against lost, 24 subjects"),
]
RULES = {"bench": ("all references", (0.1, 0.2, 0.3, 0.4)), "uno": (f"the whole image {HOSTILE}", (0.4, 0.2, 0.3, 0.1))}
VOTERS = ("ann", "bob", HOSTILE, "careless")


def judge(folder: Path, run_id: str) -> Ballot:
    """Voters prefer what is later in METHODS, but for one time in eight; "careless" misses all checks."""
    replays = []
    for place, (rule, (says, means)) in enumerate(RULES.items(), start=1):
        about = {
            "rule": rule,
            "says": says,
            "place": place,
            "metric": "dino",
            "subject_count": 1,
            "left_out": place - 1,
        }
        for method, mean in zip(METHODS, means, strict=True):
            rank = 1 + sum(other > mean for other in means)
            tau = 1.0 if place == 1 else -2 / 3
            replays.append({**about, "method": method, "mean": mean, "rank": rank, "tau": tau})
    with OpenAnswers(folder) as answers:
        ballot = draw_ballot(answers, run_id, pairs=36, checks=4, seed=0)
        methods = {row["sample_key"]: row["method"] for row in answers.rows("select sample_key, method from samples")}
    votes = []
    for voter in VOTERS:
        random = Random(voter)
        for n, question in enumerate(ballot.questions, start=1):
            if question.expects:
                answer = question.expects if voter != "careless" else "tie"
            else:
                sides = [METHODS.index(methods[key]) for key in (question.left_key, question.right_key)]
                better, worse = ("left", "right") if sides[0] > sides[1] else ("right", "left")
                answer = worse if random.random() < 0.125 else better
            votes.append({"ballot": ballot.id, "pair": n, "voter": voter, "answer": answer, "seconds": 1.5})
    with Store(folder) as store:
        keep_trial(store, TRIAL, datetime(2026, 1, 3), "python -m umm_bench.validate_metrics --store reports")
        keep_replay(store, run_id, replays)
        store.upsert("ballots", ballot.rows())
        store.upsert("votes", votes)
    return ballot


def saved(ballot: str, voter: str, answers: dict[int, str]) -> str:
    """A file as the page saves it."""
    given = [{"pair": pair, "answer": answer, "seconds": 2.0} for pair, answer in answers.items()]
    return json.dumps({"ballot": ballot, "voter": voter, "answers": given})
