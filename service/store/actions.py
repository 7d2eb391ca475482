"""What operators did, and what the job `survey` found: written now and then, and read by people."""

from typing import Any

import msgspec

from service.core.names import ZERO
from service.store import keys
from service.store.context import Context
from service.store.sights import Action, Kept

ACTIONS_KEPT = 10_000  # about 200 bytes each: years of what people do, months of what scripts do

_kept = msgspec.json.Decoder(Kept)


async def note_action(context: Context, action: Action) -> None:
    """See `Store.note_action`."""
    fields = {name: value for name, value in msgspec.structs.asdict(action).items() if value and name != "id"}
    await context.call("note_action", {"fields": fields, "cap": ACTIONS_KEPT})


async def actions(context: Context, before: str, limit: int) -> list[Action]:
    """See `Store.actions`."""
    if before == str(ZERO):  # which the server does not take for an end
        return []
    end = f"({before}" if before else "+"
    found = await context.link.call("XREVRANGE", keys.AUDIT, end, "-", "COUNT", limit, is_write=False)
    rows = []
    for raw, fields in found:
        texts = [one.decode(errors="replace") for one in fields]
        values: dict[str, Any] = dict(zip(texts[0::2], texts[1::2], strict=True))
        known = {name: values.get(name, "") for name in Action.__struct_fields__}
        rows.append(Action(**known | {"id": raw.decode(), "outcome": values.get("outcome", "")}))
    return rows


async def keep_survey(context: Context, part: str, kept: Kept, *, job: str, lease: str, token: str) -> None:
    """See `Store.keep_survey`."""
    arg = {
        "epoch": context.epoch,
        "tag": context.layout.tag(job),
        "part": part,
        "value": msgspec.json.encode(kept).decode(),
        "lease": lease,
        "token": token,
    }
    await context.call("keep_survey", arg)


async def survey_part(context: Context, part: str) -> Kept | None:
    """See `Store.survey_part`."""
    raw = await context.link.call("HGET", keys.SURVEY, part, is_write=False)
    try:
        return None if raw is None else _kept.decode(raw)
    except msgspec.DecodeError:
        return None  # of a later release, or by hand
