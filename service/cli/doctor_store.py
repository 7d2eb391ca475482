"""What `waypost doctor` says of the store: the server, its settings, who signs in, and what lies in it."""

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from service.cli.findings import Finding, bad, ok, warn
from service.config import Settings

if TYPE_CHECKING:
    from service.store.diagnosis import Diagnosis

PING_SLOW_MS, PING_BAD_MS = 5.0, 50.0  # each message waits for one call at least
CLOCK_WARN_MS, CLOCK_BAD_MS = 1000.0, 5000.0  # tokens expire by the node's clock, limits by age go by the store's
MEMORY_WARN, MEMORY_BAD = 0.75, 0.9  # of maxmemory; above all of it nothing is stored
UNREADABLE = "grant +config|get, or look in the provider's console"


def examine(seen: "Diagnosis", url: str, settings: Settings, user: str | None) -> list[Finding]:
    """Every check of the store; `user` is whose rights were asked for, None: whoever signs in."""
    return [
        _version(seen),
        _latency(seen),
        _clock(seen),
        _way(url),
        *_users(seen, url, user),
        _policy(seen),
        _memory(seen),
        _on_disk(seen),
        _replicas(seen, settings),
        _schema(seen),
        _functions(seen),
        _fence(seen),
        _nodes(seen, settings),
    ]


def user_of(url: str) -> str:
    """Whom a URL signs in as."""
    return unquote(urlsplit(url).username or "") or "default"


def _version(seen: "Diagnosis") -> Finding:
    what = f"{seen.product} {seen.version}"
    if "cluster" in (seen.info.get("redis_mode"), seen.info.get("server_mode")):
        return bad("redis", f"{what} in cluster mode", "give Waypost a single server: this release knows no cluster")
    if seen.is_too_old:
        return bad("redis", f"{what} is too old", "Redis 7.0, Valkey 8 or newer")
    return ok("redis", what)


def _latency(seen: "Diagnosis") -> Finding:
    text = f"a ping takes {seen.ping_ms:.2f} ms"
    mend = "put nodes and server into one place; look at SLOWLOG and at who else uses the server"
    if seen.ping_ms > PING_BAD_MS:
        return bad("latency", text, mend)
    return warn("latency", text, mend) if seen.ping_ms > PING_SLOW_MS else ok("latency", text)


def _clock(seen: "Diagnosis") -> Finding:
    ahead = seen.clock_ahead_ms
    text = f"the server's clock is {abs(ahead) / 1000:.3f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    mend = "let NTP set both: limits by age and tokens go by different clocks"
    if abs(ahead) > CLOCK_BAD_MS:
        return bad("clock", text, mend)
    return warn("clock", text, mend) if abs(ahead) > CLOCK_WARN_MS else ok("clock", text)


def _way(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return ok("redis tls", "a Unix socket: nothing leaves the machine")
    if parts.scheme == "rediss":
        if "ssl_cert_reqs=none" in parts.query.lower():
            return bad("redis tls", "TLS that trusts anybody", "take ssl_cert_reqs=none out of WAYPOST_REDIS_URL")
        return ok("redis tls", "TLS")
    if _is_loopback(parts.hostname or "localhost"):
        return ok("redis tls", "loopback: nothing leaves the machine")
    return bad("redis tls", "messages and the password cross a network as they are", "rediss:// in WAYPOST_REDIS_URL")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _users(seen: "Diagnosis", url: str, user: str | None) -> list[Finding]:
    name = user or seen.user or user_of(url)
    is_near = urlsplit(url).scheme == "unix"
    if name != "default":
        who = ok("redis user", f"signs in as {name}")
    elif is_near:
        who = ok("redis user", "the user `default`, over a socket that has an owner")
    else:
        who = warn(
            "redis user", "signs in as `default`", "make the ACL users of docs/security.md, then `user default off`"
        )
    if seen.rights is None:
        mend = "run doctor as `waypost-admin` (--redis-url): docs/security.md"
        return [who, warn("redis acl", f"cannot be asked what {name} may do", mend)]
    if seen.rights.lacking:
        granted = " ".join(f"+{command}" for command in seen.rights.lacking)
        return [
            who,
            bad("redis acl", f"{name} lacks {', '.join(seen.rights.lacking)}", f"ACL SETUSER {name} {granted}"),
        ]
    if seen.rights.dangerous and not (is_near and name == "default"):
        text = f"{name} may do what Waypost never does: {'; '.join(seen.rights.dangerous)}"
        return [who, warn("redis acl", text, "grant only the ACL line of docs/security.md")]
    return [who, ok("redis acl", f"{name} may do what is needed" + ("" if seen.rights.dangerous else ", and no more"))]


def _policy(seen: "Diagnosis") -> Finding:
    policy = seen.config.get("maxmemory-policy") or seen.info.get("maxmemory_policy")
    if policy is None:
        return warn("eviction", "maxmemory-policy cannot be read", UNREADABLE)
    if policy != "noeviction":
        return bad("eviction", f"on {policy} a full server throws messages away", "maxmemory-policy noeviction")
    return ok("eviction", "noeviction: a full server refuses, and forgets nothing")


def _memory(seen: "Diagnosis") -> Finding:
    used, most = int(seen.info.get("used_memory", 0)), int(seen.info.get("maxmemory", 0))
    if not most:
        text = f"{used / 1e6:.0f} MB used, and no maxmemory: the machine's end is the limit"
        return warn("memory", text, "set maxmemory below what the machine has")
    share = used / most
    text = f"{used / 1e6:.0f} of {most / 1e6:.0f} MB used ({share:.0%})"
    mend = "raise maxmemory, or keep less: `waypost retention plan`"
    if share > MEMORY_BAD:
        return bad("memory", text, mend)
    return warn("memory", text, mend) if share > MEMORY_WARN else ok("memory", text)


def _on_disk(seen: "Diagnosis") -> Finding:
    if seen.info.get("aof_enabled") != "1":
        return bad("disk", "no append-only file: a restart loses every message", "appendonly yes, appendfsync always")
    if seen.info.get("aof_last_write_status", "ok") != "ok":
        return bad("disk", "the append-only file cannot be written", "look at the server's log and its disk")
    fsync = seen.config.get("appendfsync")
    if fsync is None:
        return warn(
            "disk", "append-only file; whether it is fsynced cannot be read, so `sent` says `memory`", UNREADABLE
        )
    if fsync == "no":
        return bad("disk", "appendfsync no: a crash loses the last half minute", "appendfsync always")
    if fsync != "always":
        return warn("disk", f"appendfsync {fsync}: a crash loses the last second", "appendfsync always")
    if seen.config.get("no-appendfsync-on-rewrite") == "yes":
        return warn("disk", "no fsync while the file is rewritten", "no-appendfsync-on-rewrite no")
    return ok("disk", "every write is on disk before its answer: `sent` says `fsynced`")


def _replicas(seen: "Diagnosis", settings: Settings) -> Finding:
    if seen.info.get("role", "master") != "master":
        return bad("replicas", "this server is a replica, and takes no writes", "WAYPOST_REDIS_URL of the primary")
    there, wanted = int(seen.info.get("connected_slaves", 0)), settings.wait_replicas
    if there < wanted:
        text = f"{there} connected, and every send waits for {wanted}"
        return bad("replicas", text, "bring the replicas back, or lower WAYPOST_WAIT_REPLICAS")
    return ok("replicas", f"{there} connected, {wanted} waited for")


def _schema(seen: "Diagnosis") -> Finding:
    if seen.schema is None:
        return bad("schema", "none: the store was emptied or never migrated", "`waypost migrate up`")
    if seen.schema < seen.wanted_schema:
        return bad("schema", f"{seen.schema}, older than this release's {seen.wanted_schema}", "`waypost migrate up`")
    if seen.schema > seen.wanted_schema:
        return bad("schema", f"{seen.schema}, newer than this release's {seen.wanted_schema}", "a newer Waypost")
    return ok("schema", str(seen.schema))


def _functions(seen: "Diagnosis") -> Finding:
    if seen.functions is None:
        return bad("functions", "cannot be listed", "grant +function|list")
    missing = [name for name, state in seen.functions.items() if state == "missing"]
    other = [name for name, state in seen.functions.items() if state == "differs"]
    if missing:
        return bad("functions", f"missing: {', '.join(missing)}", "`waypost migrate up`")
    if other:
        text = f"another text than this release's: {', '.join(other)}"
        return bad("functions", text, "FUNCTION DELETE each while no node runs, then `waypost migrate up`")
    return ok("functions", f"all {len(seen.functions)} are loaded")


def _fence(seen: "Diagnosis") -> Finding:
    if seen.schema is None:
        return bad("fence", "none", "`waypost migrate up`")
    if len(seen.epochs) != 1 or not seen.epochs[0]:
        return bad("fence", "the partitions do not agree on an epoch: a part was deleted", "`waypost migrate up`")
    if seen.fenced:
        text = f"{seen.fenced} partitions wait to be opened for this run of the server"
        return warn("fence", text, "nodes do it within seconds: start one, or look at its log")
    return ok("fence", f"open, epoch {seen.epochs[0]}")


def _nodes(seen: "Diagnosis", settings: Settings) -> Finding:
    if seen.nodes is None:
        return warn("nodes", "cannot be listed", "grant +zrange and +hgetall")
    silent = [node.node for node in seen.nodes if not node.facts]
    alive = [node.node for node in seen.nodes if node.facts]
    if silent:
        text = f"silent for {settings.mailbox_ttl_s:g} s or more: {', '.join(silent)}"
        return warn("nodes", text, "look at their logs; of nodes that are gone the job `audit` clears the list")
    if not alive:
        return warn("nodes", "none", "`waypost serve`")
    return ok("nodes", f"alive: {', '.join(alive)}")
