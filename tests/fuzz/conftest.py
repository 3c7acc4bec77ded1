"""How many inputs are tried, and what became of them.

`make test` tries a few of each kind, the same ones each time; `make fuzz` (UMM_FUZZ=10000) so many of each, new ones.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

UNLIMITED = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("ci", max_examples=20, derandomize=True, database=None, **UNLIMITED)
MANY = int(os.environ.get("UMM_FUZZ", 0))
settings.register_profile("fuzz", max_examples=MANY or 1, **UNLIMITED)
settings.load_profile("fuzz" if MANY else "ci")


@pytest.fixture
def outcomes(request):
    """A Counter of this test's inputs by what became of them, shown at the end."""
    counts: Counter[str] = Counter()
    yield counts
    request.node.user_properties.append(("outcomes", counts.most_common()))
