"""What somebody may do: each action, for each who."""

from typing import get_args

import pytest

from service.auth import Action, Principal, may, may_act_for
from service.auth.permissions import SCOPE_FOR
from service.core.server_keys import SCOPES, Scope
from service.errors import WaypostError

ANN = Principal(user="ann")
ACTIONS: tuple[Action, ...] = get_args(Action)


def holder(*scopes: Scope) -> Principal:
    return Principal(user="", key="0123456789ab", scopes=frozenset(scopes))


@pytest.mark.parametrize(
    ("action", "stream", "expected"),
    [
        ("send", "user:ann", True),
        ("send", "user:bob", True),
        ("send", "group:g1", True),  # the store knows the members
        ("send", "all", False),
        ("read", "user:ann", True),
        ("read", "user:bob", False),
        ("read", "group:g1", True),
        ("read", "all", True),
        ("redact", "user:ann", True),
        ("redact", "user:bob", False),
        ("redact", "group:g1", True),
        ("redact", "all", True),
        ("acknowledge", "user:ann", True),
        ("acknowledge", "user:bob", False),
        ("acknowledge", "group:g1", True),
        ("acknowledge", "all", True),
        ("join", "group:g1", True),
        ("join", "user:ann", False),
        ("join", "all", False),
        ("manage", "group:g1", True),  # the store knows the owner
        ("manage", "user:ann", False),
        ("manage", "all", False),
        ("enter", "group:g1", False),
        ("enter", "user:ann", False),
        ("enter", "all", False),
        ("administer", "", False),
    ],
)
def test_what_a_user_may_do(action: Action, stream: str, expected: bool) -> None:
    assert may(ANN, action, stream) is expected


def test_who_has_the_claim_may_send_to_all_and_no_more() -> None:
    speaker = Principal(user="ann", can_broadcast=True)
    assert may(speaker, "send", "all")
    assert not may(speaker, "read", "user:bob")
    assert not may(speaker, "administer")


@pytest.mark.parametrize(
    ("groups", "group", "expected"),
    [
        (("g1",), "g1", True),
        (("g1",), "g10", False),
        (("g1*",), "g1", True),
        (("g1*",), "g10", True),
        (("g1*",), "g2", False),
        (("*",), "whatever", True),
        (("g2", "team-*"), "team-red", True),
        ((), "g1", False),
    ],
)
def test_which_closed_groups_a_token_opens(groups: tuple[str, ...], group: str, expected: bool) -> None:
    assert may(Principal(user="ann", groups=groups), "enter", f"group:{group}") is expected
    assert not may(Principal(user="ann", groups=groups), "enter", f"user:{group}")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_server_key_may_what_its_scope_says(action: Action) -> None:
    stream = "" if action == "administer" else "group:g1"
    assert may(holder(SCOPE_FOR[action]), action, stream)
    assert not may(holder(*(scope for scope in SCOPES if scope != SCOPE_FOR[action])), action, stream)
    assert not may(holder(), action, stream)


def test_a_server_key_acts_for_anybody_and_others_for_themselves() -> None:
    assert may_act_for(holder("send"), "bob")
    assert may_act_for(ANN, "ann")
    assert not may_act_for(ANN, "bob")
    assert not may_act_for(Principal(user="", scopes=frozenset({"admin"})), "bob")


def test_an_administrator_of_dev_mode_is_no_server_key() -> None:
    here = Principal(user="ann", scopes=frozenset({"admin"}))
    assert may(here, "administer")
    assert not may(here, "read", "user:bob")
    assert not may(here, "send", "all")


@pytest.mark.parametrize(("stream", "code"), [("bob", "bad_stream"), ("user:..", "bad_name"), ("", "bad_stream")])
@pytest.mark.parametrize("action", [action for action in ACTIONS if action != "administer"])
def test_what_is_no_stream_is_said(action: Action, stream: str, code: str) -> None:
    with pytest.raises(WaypostError) as caught:
        may(ANN, action, stream)
    assert caught.value.code == code
