"""What the service may do on the server, as an ACL: the least that works. `docs/security.md` has the two lines to copy.

Held to the code by tests: everything here is called somewhere, and with exactly this everything works.
"""

# Subcommands are spelt as ACLs spell them, each with words that it takes, for `ACL DRYRUN`. Whoever signs in needs no
# more for `AUTH`.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "client|setname": ("client", "setname", "x"),
    "config|get": ("config", "get", "x"),
    "del": ("del", "wp:x"),
    "exists": ("exists", "wp:x"),
    "expire": ("expire", "wp:x", "1"),
    "fcall": ("fcall", "x", "0"),
    "fcall_ro": ("fcall_ro", "x", "0"),
    "function|list": ("function", "list"),
    "get": ("get", "wp:x"),
    "hdel": ("hdel", "wp:x", "x"),
    "hexists": ("hexists", "wp:x", "x"),
    "hget": ("hget", "wp:x", "x"),
    "hgetall": ("hgetall", "wp:x"),
    "hkeys": ("hkeys", "wp:x"),
    "hlen": ("hlen", "wp:x"),
    "hmget": ("hmget", "wp:x", "x"),
    "hscan": ("hscan", "wp:x", "0"),
    "hset": ("hset", "wp:x", "x", "x"),
    "hsetnx": ("hsetnx", "wp:x", "x", "x"),
    "info": ("info",),
    "lindex": ("lindex", "wp:x", "0"),
    "llen": ("llen", "wp:x"),
    "lpop": ("lpop", "wp:x"),
    "lrange": ("lrange", "wp:x", "0", "0"),
    "lset": ("lset", "wp:x", "0", "x"),
    "ltrim": ("ltrim", "wp:x", "0", "0"),
    "memory|usage": ("memory", "usage", "wp:x"),
    "pexpire": ("pexpire", "wp:x", "1"),
    "ping": ("ping",),
    "pttl": ("pttl", "wp:x"),
    "rpush": ("rpush", "wp:x", "x"),
    "scan": ("scan", "0"),
    "select": ("select", "0"),
    "set": ("set", "wp:x", "x"),
    "time": ("time",),
    "unlink": ("unlink", "wp:x"),
    "wait": ("wait", "0", "0"),
    "xadd": ("xadd", "wp:x", "*", "x", "x"),
    "xdel": ("xdel", "wp:x", "0-1"),
    "xinfo|stream": ("xinfo", "stream", "wp:x"),
    "xlen": ("xlen", "wp:x"),
    "xrange": ("xrange", "wp:x", "-", "+"),
    "xread": ("xread", "STREAMS", "wp:x", "0"),
    "xrevrange": ("xrevrange", "wp:x", "+", "-"),
    "xtrim": ("xtrim", "wp:x", "MAXLEN", "0"),
    "zadd": ("zadd", "wp:x", "0", "x"),
    "zrange": ("zrange", "wp:x", "0", "0"),
    "zrangebyscore": ("zrangebyscore", "wp:x", "0", "0"),
    "zrem": ("zrem", "wp:x", "x"),
    "zremrangebyscore": ("zremrangebyscore", "wp:x", "0", "0"),
}

# Nodes and workers.
SERVICE = tuple(EXAMPLES)

# `waypost migrate`, `key`, `doctor` and all that looks, and with `fcall` whatever a function of ours does for them.
ADMIN = (
    "acl|dryrun",
    "acl|whoami",
    "client|setname",
    "config|get",
    "del",
    "eval",
    "exec",
    "exists",
    "fcall",
    "function|list",
    "function|load",
    "get",
    "hdel",
    "hexists",
    "hget",
    "hgetall",
    "hkeys",
    "hmget",
    "hscan",
    "hset",
    "info",
    "lrange",
    "memory|usage",
    "multi",
    "ping",
    "pttl",
    "scan",
    "select",
    "set",
    "time",
    "xadd",
    "xinfo|stream",
    "xlen",
    "xrange",
    "xrevrange",
    "zrange",
)

# None of them is of any use to Waypost, and whoever has the password could end everything with them.
DANGEROUS = (
    ("flushall",),
    ("keys", "*"),
    ("config", "set", "maxmemory", "0"),
    ("shutdown",),
    ("acl", "setuser", "x"),
    ("replicaof", "no", "one"),
    ("module", "list"),
    ("get", "somebody-else's-key"),
)


def line(user: str, commands: tuple[str, ...]) -> str:
    """The line of an ACL file, with a password to be replaced."""
    granted = " ".join(f"+{command}" for command in commands)
    return f"user {user} on ><password> ~wp:* resetchannels -@all {granted}"
