"""The part of the store's door that operators look through. `Store` is the whole of it."""

from collections.abc import Sequence

from service.core.entries import Entry, Redaction, Removal
from service.core.names import EntryId
from service.store import actions, sightings
from service.store.context import Context
from service.store.sights import (
    Action,
    DeviceSight,
    EntryEvidence,
    JobSight,
    Kept,
    StreamBounds,
    StreamDevice,
    StreamSight,
    SurveyOrder,
    UserSight,
)


class ForInspection:
    """Looks at streams, devices and jobs as they are kept: plain reads, which a full or fenced store answers too. And
    what operators did, and what the job `survey` found.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def stream_sights(self, streams: Sequence[str], since_ms: int) -> list[StreamSight | None]:
        """How streams stand, in pipelines; None for one that cannot be told of (a group that nobody made, a key of
        another type). `since_ms` (Redis time): since when `recent` counts.
        """
        return await sightings.stream_sights(self._context, streams, since_ms)

    async def entries(
        self, stream: str, *, above: EntryId | None = None, below: EntryId | None = None, limit: int, newest: bool
    ) -> list[Entry]:
        """Up to `limit` entries between two ids, neither of them included, the newest or the oldest of these; oldest
        first. Whole, whoever's they are.
        """
        return await sightings.entries(self._context, stream, above=above, below=below, limit=limit, newest=newest)

    async def redactions(self, stream: str, numbers: Sequence[int]) -> list[Redaction]:
        """Those of the numbers that were redacted."""
        return await sightings.redactions(self._context, stream, numbers)

    async def ledger(self, stream: str, limit: int) -> list[Removal]:
        """The last lines of a stream's ledger, newest first."""
        return await sightings.ledger(self._context, stream, limit)

    async def user_sight(self, user: str, devices_max: int) -> UserSight:
        """A user's devices, those that were seen last, and the streams that they have to do with."""
        return await sightings.user_sight(self._context, user, devices_max)

    async def devices_of(self, users: Sequence[str], devices_max: int) -> list[tuple[list[DeviceSight], int]]:
        """For each user the devices that were seen last, with their offsets, and how many there are in all."""
        return await sightings.devices(self._context, users, devices_max)

    async def stream_devices(
        self, asked: Sequence[tuple[str, Sequence[str]]], devices_max: int
    ) -> list[list[StreamDevice]]:
        """For each stream devices of these users with their offset in it, of each user those seen last."""
        return await sightings.stream_devices(self._context, asked, devices_max)

    async def bounds(self, asked: Sequence[tuple[str, str]]) -> list[StreamBounds | None]:
        """For each pair of a stream and a user: how the stream stands, and the user's memberships. None for one whose
        key cannot be read.
        """
        return await sightings.bounds(self._context, asked)

    async def first_above(self, asked: Sequence[tuple[str, EntryId]]) -> list[EntryId | None]:
        """For each pair of a stream and an id the first entry above it that is there."""
        return await sightings.first_above(self._context, asked)

    async def evidence(self, stream: str, entry: EntryId, user: str) -> EntryEvidence:
        """What the store keeps about one id of a stream, and about a user's right to see it."""
        return await sightings.evidence(self._context, stream, entry, user)

    async def job_sight(self, job: str) -> JobSight:
        """Who holds the lease of a job."""
        return await sightings.job_sight(self._context, job)

    # What operators did

    async def note_action(self, action: Action) -> None:
        """Note it. Works on a full and on a fenced store. Repeated, it is noted twice."""
        await actions.note_action(self._context, action)

    async def actions(self, before: str, limit: int) -> list[Action]:
        """What operators did, newest first, before the line of this id ("": the newest)."""
        return await actions.actions(self._context, before, limit)

    # What the job `survey` found

    async def keep_survey(self, part: SurveyOrder, kept: Kept, *, job: str, lease: str, token: str) -> None:
        """Keep a part of it, in place of the one before. May be repeated. Raises `Superseded`."""
        await actions.keep_survey(self._context, part, kept, job=job, lease=lease, token=token)

    async def survey_part(self, part: SurveyOrder) -> Kept | None:
        """A part of the last survey, None when there was none."""
        return await actions.survey_part(self._context, part)
