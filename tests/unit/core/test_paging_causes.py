"""A gap of very many removals: a frame stays small, and says what a client can use."""

import msgspec

from service.core.entries import Page, Removal
from service.core.names import ZERO, EntryId
from service.core.paging import CAUSES_MAX, Gap, lay_out


def test_many_removals_are_told_by_their_causes_each_with_its_last_time() -> None:
    removals = tuple(
        Removal(
            after=EntryId(n, n), to=EntryId(n + 1, n + 1), count=1, kind="trimmed", at=n, policy="all",
            limit="max_age=14d" if n % 2 else "max_entries=9",
        )
        for n in range(40)
    )  # fmt: skip
    page = Page("all", ZERO, EntryId(40, 40), EntryId(40, 40), None, (), True, {}, removals, None)
    [gap] = lay_out(page, "bob", ZERO).items
    assert isinstance(gap, Gap)
    assert (gap.after, gap.to, gap.missed) == (ZERO, EntryId(40, 40), 40)
    assert [(cause.limit, cause.at) for cause in gap.causes] == [("max_entries=9", 38), ("max_age=14d", 39)]

    few = msgspec.structs.replace(page, removals=removals[:CAUSES_MAX])
    [gap] = lay_out(few, "bob", ZERO).items
    assert isinstance(gap, Gap)
    assert len(gap.causes) == CAUSES_MAX
