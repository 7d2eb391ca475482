"""Every Redis key: its name, partition, type, how long it lives, who writes and who deletes it.

Keys of a stream begin with the hash tag of its partition, so they share a slot in Redis Cluster and one
function call on them is atomic there too. Lua builds the same names (`lua/_shared.lua`), held equal by a test.
"""

import re
import zlib
from functools import lru_cache
from typing import Literal, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

META = "wp:meta"
NODES = "wp:nodes"
MIGRATE_LOCK = "wp:migrate"
JOBS = "wp:jobs"
SERVER_KEYS = "wp:keys"
NOTICES = "wp:notices"
AUDIT = "wp:audit"
SURVEY = "wp:survey"
PARTITIONS_DEFAULT = 16
_GLOB = re.compile(r"[*?\[\]\\^-]")
_ESCAPED = r"\\\g<0>"


class KeyKind(NamedTuple):
    """A row of the data model. `p` in `pattern` stands for a partition's tag; words in <> for names."""

    pattern: str
    type: Literal["hash", "stream", "list", "zset", "string"]
    lifetime: Literal["permanent", "ttl"]
    writer: str
    deleter: str
    what: str


# The table below is the data model; docs/data-model.md shows the same rows.
KEYS: tuple[KeyKind, ...] = (
    KeyKind("wp:meta", "hash", "permanent", "migrate", "nobody", "store (id), schema, partitions"),
    KeyKind("wp:migrate", "string", "ttl", "migrate", "migrate", "lock: the token of the migration at work"),
    KeyKind(
        "wp:nodes",
        "zset",
        "permanent",
        "heartbeat",
        "heartbeat, forget_node, audit_nodes",
        "node -> last seen (Redis ms)",
    ),
    KeyKind("wp:node:<node>", "hash", "ttl", "heartbeat", "forget_node", "facts of a node: lag, load, memory, version"),
    KeyKind(
        "wp:{p}:e",
        "hash",
        "permanent",
        "migrate, reconcile",
        "nobody",
        "epoch, run; while reconciling also since:<run> (Redis ms) and done:<run>:<node>",
    ),
    KeyKind(
        "wp:{p}:s:<stream>",
        "stream",
        "permanent",
        "publish, join, leave, redact",
        "drop_group; trim and redact empty it",
        "the entries. t type, f sender, o to, i mid, b body, d device, p trace, x target of a redacted, "
        "r recipient's entry id in a sender's copy, v format when not 1; empty ones are left out",
    ),
    KeyKind(
        "wp:{p}:h:<stream>",
        "hash",
        "permanent",
        "publish, join, leave, redact, attach, detach, reconcile, trim, drop_group, audit_streams",
        "nobody",
        "head, floor, lost (the highest id of a lost stretch), each ms-n; and the register: mailbox key -> token",
    ),
    KeyKind(
        "wp:{p}:g:<group>",
        "hash",
        "permanent",
        "join, leave, forget, configure_group, delete_group",
        "drop_group",
        "member -> role|joined,left;joined,  and /access open|closed|deleted, /announce (members), /members (count), "
        "/emptied, /made, /maker",
    ),
    KeyKind(
        "wp:{p}:x:<stream>",
        "list",
        "permanent",
        "trim, reconcile",
        "capped at 1000; drop_group",
        "ledger of removals, newest last: JSON {after, to, count, kind, policy, limit, at, run}",
    ),
    KeyKind(
        "wp:{p}:z:<stream>",
        "hash",
        "permanent",
        "redact",
        "trim, below the floor; drop_group",
        "redactions: n -> JSON {id, by, at, sender, to, mid}",
    ),
    KeyKind(
        "wp:{p}:b:<stream>",
        "hash",
        "ttl",
        "measure, trim, redact",
        "expiry, 7 d after the last measure; drop_group",
        "where a policy limits bytes: upto (id up to which the stream was measured), bytes (from the floor to there)",
    ),
    KeyKind("wp:{p}:u:<user>", "hash", "permanent", "join", "leave, open", "group -> 1; a superset of the memberships"),
    KeyKind(
        "wp:{p}:d:<user>",
        "hash",
        "permanent",
        "open, commit",
        "forget_devices",
        "device -> JSON {first, last, node}",
    ),
    KeyKind(
        "wp:{p}:o:<user>/<device>",
        "hash",
        "permanent",
        "open, commit, join",
        "forget_devices; open: of groups left long ago",
        'stream -> "ms-n epoch"',
    ),
    KeyKind(
        "wp:{p}:v:<user>/<device>",
        "hash",
        "ttl",
        "keep_bookmark",
        "expiry, events_keep_s after the last write; keep_bookmark: the oldest above 64, and those that are spent",
        "bases of bookmarks: name -> JSON [epoch, [[stream, ms, n] ...]]; /order -> their names, oldest first, each "
        "with the one it goes on from",
    ),
    KeyKind(
        "wp:{p}:k:<bucket>",
        "hash",
        "ttl",
        "publish",
        "expiry, 2 key windows + 60 s after the last write",
        "digest of (to, sender, key) -> entry id, body digest, sender's copy; bucket = seconds of the stream's time "
        "(never below its head's) / key window",
    ),
    KeyKind(
        "wp:{p}:t:<user>",
        "string",
        "ttl",
        "publish",
        "expiry, when it would be full again",
        "where sends are limited, what the user may still store: tokens, and Redis ms",
    ),
    KeyKind(
        "wp:{p}:m:<node>.<random>",
        "stream",
        "ttl",
        "mailbox, lease; publish, join, leave, redact",
        "drop_mailbox; a failed add; audit_nodes",
        "what has to go to the connections of a node, ids 1-<seq>: r records of entries, a msgpack list; or beat",
    ),
    KeyKind("wp:{p}:c", "hash", "permanent", "publish (cluster only)", "publish", "debts: second inboxes still owed"),
    KeyKind(
        "wp:{p}:l:<job>",
        "hash",
        "ttl",
        "job_take, job_renew",
        "job_finish, job_renew; expiry",
        "lease of a scheduled job: token (Redis us), worker, ttl (ms)",
    ),
    KeyKind(
        "wp:{p}:j:<job>",
        "hash",
        "permanent",
        "job_take, job_renew, job_finish",
        "nobody",
        "a scheduled job: slot (Redis ms at which the last run began), run, done 1|0, token (the last one given), "
        "progress (of an unfinished run: JSON)",
    ),
    KeyKind(
        "wp:jobs",
        "stream",
        "permanent",
        "job_finish",
        "capped at 1000",
        "runs of scheduled jobs: job, run, state, report",
    ),
    KeyKind(
        "wp:keys",
        "hash",
        "permanent",
        "add_key",
        "revoke_key",
        "server keys: id -> JSON {name, scopes, digest, created}",
    ),
    KeyKind(
        "wp:notices",
        "stream",
        "permanent",
        "tell_nodes",
        "capped at about 1000",
        "what every node has to do at once: kind, user, device, key",
    ),
    KeyKind(
        "wp:audit",
        "stream",
        "permanent",
        "note_action",
        "capped at about 10000",
        "what operators did: who, action, target, reason, outcome, detail",
    ),
    KeyKind(
        "wp:survey",
        "hash",
        "permanent",
        "keep_survey",
        "nobody; each field has at most survey_rows rows",
        "what the job survey found: totals, and the first streams and devices by each order: JSON {at_ms, run, rows}",
    ),
)


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\{p\}|<\w+>)", pattern)
    return re.compile(
        "".join(r"\{\d+\}" if p == "{p}" else r"[^/{}]+" if p.startswith("<") else re.escape(p) for p in parts)
    )


_PATTERNS = tuple((_compile(kind.pattern), kind) for kind in KEYS)


def kind_of(name: str) -> KeyKind | None:
    """The row of the data model that a key belongs to, None for a key that is not ours."""
    return next((kind for pattern, kind in _PATTERNS if pattern.fullmatch(name)), None)


@lru_cache(maxsize=8)
def partition_tags(partitions: int) -> tuple[str, ...]:
    """The hash tag of each partition: the smallest number whose slot lies in its slice of the slot space.

    Equal slices spread the partitions evenly over the shards of a cluster, whose slots are handed out in ranges.
    """
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < partitions:
        tag = str(number)
        tags.setdefault(key_slot(tag.encode()) * partitions // REDIS_CLUSTER_HASH_SLOTS, tag)
        number += 1
    return tuple(tags[partition] for partition in range(partitions))


class Layout:
    """The keys of a store with a given number of partitions, fixed when it was first migrated."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.tags = partition_tags(partitions)

    def tag(self, stream: str) -> str:
        """The hash tag of the partition that holds everything of `stream`."""
        return self.tags[zlib.crc32(stream.encode()) % self.partitions]

    def user_tag(self, user: str) -> str:
        """The hash tag of a user's keys: that of the inbox."""
        return self.tag(f"user:{user}")

    def stream(self, stream: str) -> str:
        """The entries of a stream."""
        return key(self.tag(stream), "s", stream)

    def group(self, group: str) -> str:
        """The members and settings of a group."""
        return key(self.tag(f"group:{group}"), "g", group)

    def user(self, user: str) -> str:
        """The list of a user's groups."""
        return key(self.user_tag(user), "u", user)

    def offsets(self, user: str, device: str) -> str:
        """How far a device has come."""
        return key(self.user_tag(user), "o", f"{user}/{device}")

    def bases(self, user: str, device: str) -> str:
        """Bases of a device's bookmarks."""
        return key(self.user_tag(user), "v", f"{user}/{device}")


def key(tag: str, letter: str, name: str) -> str:
    """A key of a partition: one letter for what it is, then what it is of."""
    return f"wp:{{{tag}}}:{letter}:{name}"


def every(letter: str, kind: str = "", part: str = "") -> str:
    """The pattern that a SCAN finds all keys of a kind by, whatever their partition; of streams, those of one kind, and
    those with `part` in their name (of a kind: in what follows it).
    """
    within = f"*{_GLOB.sub(_ESCAPED, part)}*" if part else "*"
    return f"wp:{{*}}:{letter}:{kind}:{within}" if kind else f"wp:{{*}}:{letter}:{within}"


def name_in(raw: bytes) -> str:
    """What a key of a partition is of: "wp:{3}:s:user:alice", behind the third colon, and there is none in the tag."""
    return raw.decode(errors="replace").split(":", 3)[3]


def epoch(tag: str) -> str:
    """The fence of a partition."""
    return f"wp:{{{tag}}}:e"


def mailbox(tag: str, name: str) -> str:
    """A mailbox; `name` is `<node>.<random>`."""
    return key(tag, "m", name)


def job_lease(tag: str, name: str) -> str:
    """The lease of a scheduled job."""
    return key(tag, "l", name)


def job(tag: str, name: str) -> str:
    """What is remembered of a scheduled job."""
    return key(tag, "j", name)


def node(name: str) -> str:
    """The facts of a node."""
    return f"wp:node:{name}"
