"""Retention: which policy a stream has, what that policy lets go, and how long a device may stay away.

A stream has one policy, the one whose `match` is most specific; policies are not added up. Each limit of a policy is
one `Cut`: the oldest entries go until the limit is kept. `min_keep` holds the newest entries against every limit, and
`hold_unread` holds in an inbox what an active device has not acknowledged, up to an age of its own.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from service.core.names import ALL, EntryId, is_stream, parse_stream

BUILT_IN = "built in"
DAY_S = 86_400
_DURATION = re.compile(r"([1-9]\d{0,8})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}
DURATION_S_MAX = 100 * 365 * DAY_S  # whoever wants to keep for longer keeps for ever, and gives no limit
_SIZE = re.compile(r"([1-9]\d{0,14}) ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_BYTES = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
BYTES_MAX = 1 << 50
COUNT_MAX = 10**12
TELLING_PART = 10  # of a limit: the part that has to be there before its rate is reckoned with


def parse_duration(text: object) -> int:
    """Seconds of a text such as "30s", "5m", "12h" or "14d". Raises `ValueError` with what was expected."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError('Expected a duration: a whole number with s, m, h or d, such as "14d"')
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > DURATION_S_MAX:
        raise ValueError("Expected a duration of at most 36500d")
    return seconds


def duration_text(seconds: int) -> str:
    """Seconds as a user writes them, in the largest unit that fits: 1209600 is "14d"."""
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_size(value: object) -> int:
    """Bytes of a number, or of a text such as "64MB" (1,000 each) or "64MiB" (1,024 each). Raises `ValueError`."""
    match = _SIZE.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None:
        raise ValueError('Expected a size: bytes, or a text such as "64MB" or "64MiB"')
    size = int(match[1]) * _BYTES[match[2] or ""]
    if size > BYTES_MAX:
        raise ValueError("Expected a size of at most 1024TiB")
    return size


def size_text(size: int) -> str:
    """Bytes as a user writes them: 64000000 is "64MB", 67108864 is "64MiB"."""
    for unit, unit_bytes in sorted(_BYTES.items(), key=lambda item: -item[1]):
        if unit_bytes > 1 and size and size % unit_bytes == 0:
            return f"{size // unit_bytes}{unit}"
    return f"{size}B"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may go of the streams that `match` names: `user:*`, `group:*`, `all` or the name of one stream.

    Ages in seconds, sizes in bytes (names and values of the entries' fields); None: no such limit. `source` says where
    the policy stands.
    """

    match: str
    max_age_s: int | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    min_keep: int = 0
    hold_unread_s: int | None = None
    source: str = BUILT_IN


# By age alone, and for all streams alike: whoever wants more or less says so.
DEFAULTS = tuple(Policy(match=match, max_age_s=30 * DAY_S) for match in ("user:*", "group:*", "all"))

_FIELDS = ("match", "max_age", "max_entries", "max_bytes", "min_keep", "hold_unread")


def read_policies(tables: Iterable[object], source: str) -> tuple[tuple[Policy, ...], list[str]]:
    """The policies of a settings file, and all that is wrong with them, a line each."""
    policies: dict[str, Policy] = {}
    wrong: list[str] = []
    for number, table in enumerate(tables, 1):
        where = f"{source}: retention.policies[{number}]"
        if not isinstance(table, Mapping):
            wrong.append(f"{where}: Expected a table, [[retention.policies]]")
            continue
        policy, lines = _read_policy(table, f"{source} [[retention.policies]] {number}")
        wrong += [f"{where}: {line}" for line in lines]
        if policy is not None and policy.match in policies:
            wrong.append(f"{where}: match: {policy.match} has a policy already; one stream has one policy")
        elif policy is not None:
            policies[policy.match] = policy
    return tuple(policies.values()), wrong


def _read_policy(table: Mapping[str, object], source: str) -> tuple[Policy | None, list[str]]:
    wrong = [f"{name}: no such setting; there are {', '.join(_FIELDS)}" for name in table if name not in _FIELDS]
    read: dict[str, int | None] = {}
    for name, parse in (
        ("max_age", parse_duration),
        ("max_entries", _parse_count),
        ("max_bytes", parse_size),
        ("min_keep", _parse_count),
        ("hold_unread", parse_duration),
    ):
        try:
            read[name] = parse(table[name]) if name in table else None
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            read[name] = None
    match = table.get("match")
    if not isinstance(match, str) or not _is_match(match):
        return None, [*wrong, "match: Expected user:*, group:*, all, or the name of one stream"]
    policy = Policy(
        match=match,
        max_age_s=read["max_age"],
        max_entries=read["max_entries"],
        max_bytes=read["max_bytes"],
        min_keep=read["min_keep"] or 0,
        hold_unread_s=read["hold_unread"],
        source=source,
    )
    return policy, wrong + _nonsense(policy)


def _parse_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= COUNT_MAX:
        raise ValueError("Expected a whole number above 0")
    return value


def _is_match(match: str) -> bool:
    return match in ("user:*", "group:*") or is_stream(match)


def _nonsense(policy: Policy) -> list[str]:
    """What each may be and together cannot."""
    wrong = []
    limits = (policy.max_age_s, policy.max_entries, policy.max_bytes)
    if policy.max_entries is not None and policy.min_keep > policy.max_entries:
        wrong.append("min_keep: Expected at most max_entries, which could never be kept")
    if policy.min_keep and not any(limits):
        wrong.append("min_keep: there is no max_age, max_entries or max_bytes that it could hold against")
    if policy.hold_unread_s is None:
        return wrong
    if not policy.match.startswith("user:"):
        wrong.append("hold_unread: only inboxes (user:…) hold what is unread: nobody's absence may fill a group")
    elif not any(limits):
        wrong.append("hold_unread: there is no max_age, max_entries or max_bytes that it could hold against")
    elif limits == (policy.max_age_s, None, None) and policy.hold_unread_s <= (policy.max_age_s or 0):
        wrong.append("hold_unread: Expected more than max_age: until then everything is kept anyway")
    return wrong


def policy_of(stream: str, policies: Iterable[Policy]) -> Policy:
    """The policy of a stream: its own, else that of its kind, else the built-in one. Nothing is added up."""
    by_match = {policy.match: policy for policy in (*DEFAULTS, *policies)}
    kind, _ = parse_stream(stream)
    return by_match.get(stream) or by_match["all" if kind == "all" else f"{kind}:*"]


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """One limit that removes the oldest entries of a stream.

    They go as far as `upto` (None: the head), but `keep` of the newest stay, and with `keep_bytes` no more go than it
    takes to come down to that many bytes. `limit` is what the ledger and the gap say: `max_age=14d`.
    """

    limit: str
    upto: EntryId | None = None
    keep: int = 0
    keep_bytes: int | None = None


class Hold(msgspec.Struct, frozen=True):
    """What an inbox keeps although a limit says otherwise: all that an active device has not acknowledged.

    Not what is as old as `upto` or older. A device that was seen last before `idle_before` (Redis time in ms) holds
    nothing.
    """

    user: str
    upto: EntryId
    idle_before: int


def before(now_ms: int, age_s: int) -> EntryId:
    """The id below which everything is older than `age_s`."""
    return EntryId(max(0, now_ms - age_s * 1000), 0)


def limit_texts(policy: Policy) -> dict[str, str]:
    """The limits that a policy has, by their names, as the ledger, gaps and operators are told of them."""
    texts = {
        "max_age": None if policy.max_age_s is None else duration_text(policy.max_age_s),
        "max_entries": policy.max_entries,
        "max_bytes": None if policy.max_bytes is None else size_text(policy.max_bytes),
        "min_keep": policy.min_keep or None,
        "hold_unread": None if policy.hold_unread_s is None else duration_text(policy.hold_unread_s),
    }
    return {name: f"{name}={text}" for name, text in texts.items() if text is not None}


def cuts(policy: Policy, now_ms: int) -> list[Cut]:
    """The limits of a policy at a moment of Redis time, in the order in which they are carried out."""
    found, texts = [], limit_texts(policy)
    if policy.max_age_s is not None:
        found.append(Cut(limit=texts["max_age"], upto=before(now_ms, policy.max_age_s), keep=policy.min_keep))
    if policy.max_entries is not None:
        found.append(Cut(limit=texts["max_entries"], keep=max(policy.max_entries, policy.min_keep)))
    if policy.max_bytes is not None:
        found.append(Cut(limit=texts["max_bytes"], keep=policy.min_keep, keep_bytes=policy.max_bytes))
    return found


def hold(policy: Policy, stream: str, now_ms: int, device_idle_s: int) -> Hold | None:
    """What the policy holds in this inbox, None where it holds nothing."""
    if policy.hold_unread_s is None:
        return None
    _, user = parse_stream(stream)
    return Hold(user, before(now_ms, policy.hold_unread_s), max(0, now_ms - device_idle_s * 1000))


def horizon_s(
    policy: Policy, stream: str, *, entries: int, size: int, oldest_age_s: float, device_idle_s: int
) -> float | None:
    """How long a device may stay away and lose nothing, at the present rate; None: no end is in sight.

    `entries` and `size` (bytes) are what the stream keeps, `oldest_age_s` is the age of the oldest of them: together
    the present rate, which counts once a tenth of a limit is there: a few entries of a few seconds tell nothing of the
    next hundred thousand. What an inbox holds for its active devices, or `min_keep` keeps, is promised beyond that. A
    device that was forgotten holds nothing, and begins anew in `all`.
    """
    limits: list[float] = []
    if policy.max_age_s is not None:
        limits.append(policy.max_age_s)
    for limit, kept in ((policy.max_entries, entries), (policy.max_bytes, size)):
        if limit is not None and kept * TELLING_PART >= limit:
            limits.append(max(oldest_age_s, 0.001) * limit / kept)
    if stream == ALL:
        return min([*limits, float(device_idle_s)])
    if not limits:
        return None
    held = [float(min(policy.hold_unread_s, device_idle_s))] if policy.hold_unread_s is not None else []
    if policy.min_keep and entries * TELLING_PART >= policy.min_keep:
        held.append(max(oldest_age_s, 0.001) * policy.min_keep / entries)
    return max([min(limits), *held])
