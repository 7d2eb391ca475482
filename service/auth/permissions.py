"""What somebody may do: the one function that decides. `docs/security.md` has it as a table, held to this by a test.

What only the store knows (who is a member, who owns a group) the store decides, in the call that does it: there the
answer here is yes, and the store's is `not_member`, `not_allowed` or `group_closed`.
"""

from typing import Literal

from service.auth.principal import Principal
from service.core.names import may_be_read, parse_stream
from service.core.server_keys import Scope

Action = Literal["send", "read", "redact", "acknowledge", "join", "enter", "manage", "administer"]

# What a server key needs for each action: it acts for the system, so it needs to be nobody's owner and no member.
SCOPE_FOR: dict[Action, Scope] = {
    "send": "send",
    "read": "read",
    "acknowledge": "read",
    "redact": "admin",
    "join": "groups",
    "enter": "groups",
    "manage": "groups",
    "administer": "admin",
}


def may(principal: Principal, action: Action, stream: str = "") -> bool:
    """Whether `principal` may do `action` to `stream`. Raises `bad_stream`, `bad_name` for what is no stream.

    `send`: a message. `read`: entries, history, members and settings. `redact`: take a message away. `acknowledge`:
    move offsets. `join`: become a member of a group, or leave it. `enter`: the same where it is closed. `manage`: a
    group's settings and the members other than oneself. `administer`: what operators do; it concerns no stream.
    """
    if principal.key:
        return SCOPE_FOR[action] in principal.scopes
    if action == "administer":
        return "admin" in principal.scopes
    kind, name = parse_stream(stream)
    match action:
        case "send":
            return kind != "all" or principal.can_broadcast
        case "read" | "redact" | "acknowledge":
            return may_be_read(stream, principal.user)
        case "join" | "manage":
            return kind == "group"
        case "enter":
            return kind == "group" and any(_matches(name, pattern) for pattern in principal.groups)


def may_act_for(principal: Principal, user: str) -> bool:
    """Whether `principal` may speak and ask as `user`: a server key as anybody, everybody else as themselves."""
    return bool(principal.key) or principal.user == user


def _matches(group: str, pattern: str) -> bool:
    return group.startswith(pattern[:-1]) if pattern.endswith("*") else group == pattern
