"""Who signs in, and who may send where."""

import pytest

from service.auth import Action, Principal, may, sign_in
from service.config import load
from service.errors import WaypostError

DEV = load({"WAYPOST_DEV": "1"})


def test_dev_mode_takes_users_at_their_word() -> None:
    assert sign_in({"user": "bob"}, None, DEV) == Principal("bob", can_broadcast=True)


@pytest.mark.parametrize("query", [{}, {"user": ""}, {"user": "a/b"}, {"token": "abc"}])
def test_anything_else_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(WaypostError) as caught:
        sign_in(query, "Bearer abc", DEV)
    assert caught.value.code == "unauthorised"
    assert "abc" not in str(caught.value)


def test_without_dev_mode_nobody_is_taken_at_their_word() -> None:
    with pytest.raises(WaypostError, match="unauthorised"):
        sign_in({"user": "bob"}, None, load({}))


def test_who_may_send_where() -> None:
    anyone, speaker = Principal("ann"), Principal("sue", can_broadcast=True)
    assert may(anyone, "send", "user:bob")
    assert may(anyone, "send", "group:g1")  # the store knows the members
    assert not may(anyone, "send", "all")
    assert may(speaker, "send", "all")
    with pytest.raises(WaypostError, match="bad_stream"):
        may(anyone, "send", "bob")


@pytest.mark.parametrize("action", ["read", "redact"])
def test_who_may_look_where_and_take_away(action: Action) -> None:
    ann = Principal("ann", can_broadcast=True)
    assert may(ann, action, "user:ann")
    assert may(ann, action, "all")
    assert may(ann, action, "group:g1")  # the store knows the members
    assert not may(ann, action, "user:bob")
    with pytest.raises(WaypostError, match="bad_name"):
        may(ann, action, "user:..")
