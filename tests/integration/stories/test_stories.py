"""Stories told to real stores: what may happen, in an order that hypothesis draws, checked against a plain model.

Two nodes in this process, several devices of a few users, and calls that are lost, repeated and late, mailboxes that
lose entries, readers that stand still, servers that are killed. `story.py` has what may happen, `model.py` what must
be so, `watch.py` what every connection is checked for. A story that fails is told again in its shortest form, with its
seed.

`make test` tells a few, always the same. More of them, and others:

    pytest tests/integration/stories --hypothesis-profile=long --hypothesis-seed=7 -o faulthandler_timeout=0
"""

import asyncio
import time

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.integration.store.kit import Server
from tests.integration.stories.story import Act, Opening, Story, openings, plots

STORIES = 15  # in `make test`, on each kind of server
SHRINKING_S = 100.0  # for the shortest form of a story that failed


class Teller:
    """Tells stories on a server. What failed once is not told again: it may fail only now and then."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.failed: dict[str, BaseException] = {}
        self.give_up_at = float("inf")

    def tell(self, opening: Opening, acts: list[Act]) -> None:
        key = repr((opening, acts))
        if key in self.failed:
            raise self.failed[key]
        if time.monotonic() > self.give_up_at:
            return
        for _ in range(2 if self.failed else 1):
            try:
                asyncio.run(Story(self.server, opening).play(acts))
            except Exception as error:
                if not self.failed:
                    self.give_up_at = time.monotonic() + SHRINKING_S
                self.failed[key] = error
                raise


def test_whatever_happens_in_a_story_the_promises_hold(server: Server, request: pytest.FixtureRequest) -> None:
    number = int(request.config.getoption("--hypothesis-seed") or 1)
    is_long = settings.get_current_profile_name() == "long"
    told = given(openings, plots)(Teller(server).tell)
    profile = settings.get_profile("long")
    told = settings(
        max_examples=profile.max_examples if is_long else STORIES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
    )(told)
    try:
        seed(number)(told)()
    except Exception as error:
        error.add_note(f"seed {number}")
        raise
