"""When a job is due. All by Redis time and in UTC: neither this machine's clock nor its time zone matters."""

import datetime
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from service.config import Schedule
from service.store import JobState

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

# The last run cannot have begun later than now: the server's clock was set back. Less is two servers that differ.
SLACK_MS = 1000
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WEEKDAYS = re.compile(r"(\*(?=/)|[0-7])(?:-([0-7]))?(?:/(\d+))?")


def due_in_ms(schedule: Schedule, state: JobState) -> int | None:
    """How long until a run is due; 0 now, None never (a date that does not exist).

    Many missed runs are one: the next is counted from the last that began.
    """
    if not state.slot or (not state.is_done and not state.lease_ms):
        return 0  # never seen: its schedule begins now; left unfinished: somebody is to resume it
    slot = int(state.slot)
    if slot > state.now_ms + SLACK_MS:
        return 0  # nobody knows how long ago it was, and once too often does no harm
    at = next_ms(schedule, slot)
    return None if at is None else max(0, at - state.now_ms)


def next_ms(schedule: Schedule, after_ms: int) -> int | None:
    """The first time of the schedule after a moment, in ms since 1970; None: never."""
    if not schedule.cron:
        return after_ms + schedule.every * 1000
    # Whole seconds, upwards: a run that began at its very second is not due in it again.
    moment = datetime.datetime.fromtimestamp(after_ms // 1000 + 1, datetime.UTC)
    found = _trigger(schedule.cron).get_next_fire_time(None, moment)
    return None if found is None else round(found.timestamp() * 1000)


@lru_cache(maxsize=32)
def _trigger(cron: str) -> "CronTrigger":
    """Weekdays by number are meant as everywhere else, Sunday 0 or 7; the library counts from Monday."""
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - a node without such a schedule need not load it

    *fields, weekday = cron.split()
    return CronTrigger.from_crontab(" ".join([*fields, ",".join(map(_weekdays, weekday.split(",")))]), "UTC")


def _weekdays(part: str) -> str:
    found = _WEEKDAYS.fullmatch(part)
    if found is None:
        return part
    first = 0 if found[1] == "*" else int(found[1])
    last = int(found[2] or (6 if found[3] else first))
    return ",".join(_DAYS[day % 7] for day in range(first, last + 1, int(found[3] or 1)))
