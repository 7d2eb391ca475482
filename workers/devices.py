"""The job `devices`: forget devices that have not been seen for longer than `device_idle_max`.

Their offsets go with them: they hold nothing in an inbox and keep no group any more. One that comes back begins like
a new device. A device that is connected is seen, however silent it is: its node says so (`service/node/commits.py`).
"""

from service.config import Settings
from service.errors import WaypostError
from service.store import Store
from workers.runs import Run

USERS_A_CALL = 50  # few enough that a call takes a millisecond, though each has several devices


async def run(run: Run, store: Store, settings: Settings) -> None:
    """Looks at the devices of every user."""
    idle_ms = settings.retention.device_idle_max * 1000
    async for _, users in run.walk("d"):
        idle_before_ms = await store.now_ms() - idle_ms
        for at in range(0, len(users), USERS_A_CALL):
            await _sweep(run, store, users[at : at + USERS_A_CALL], idle_before_ms)


async def _sweep(run: Run, store: Store, users: list[str], idle_before_ms: int) -> None:
    todo = [(user, "") for user in users]
    while todo:
        try:
            swept = await store.forget_devices(todo, idle_before_ms, lease=run.lease, token=run.token)
        except WaypostError as problem:
            run.error(f"devices of {todo[0][0]} and others", problem)
            return
        for one in swept:
            run.report.devices_seen += one.seen
            run.report.devices_forgotten += one.forgotten
        todo = [(one.user, one.cursor) for one in swept if one.cursor] + todo[len(swept) :]
        await run.breathe()
