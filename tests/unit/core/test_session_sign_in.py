"""What a sign-in means for a conversation: what it permits, which device it binds, how it is renewed, how it ends."""

import pytest

from service.core.commands import Close, Open, Renew
from service.errors import WaypostError
from tests.unit.core.conversation import Client, at, bare, begun, error, join, leave, opened, send

AUTH = {"type": "auth", "token": "t2", "ref": 9}


def signed_in(**given: object) -> Client:
    client = Client(**given)  # type: ignore[arg-type]  # whatever a test is about
    client.says({"type": "hello"})
    client.opens(user_ann=begun(), group_g=begun(), all=begun())
    client.commands = []
    return client


def test_what_the_sign_in_does_not_permit_is_refused_and_asks_nothing() -> None:
    asked: list[tuple[str, str]] = []

    def permits(action: str, stream: str) -> bool:
        asked.append((action, stream))
        return stream == "group:g"

    client = signed_in(permits=permits)
    written = client.says(send(1, to="all"), send(2, to="user:bob"), join(3, group="h"), leave(4, group="h"), join(5))
    assert bare(written) == [error("not_allowed", ref) for ref in (1, 2, 3, 4)]
    assert client.numbers() == [1], "the group that is permitted"
    assert asked[:3] == [("send", "all"), ("send", "user:bob"), ("join", "group:h")]


def test_what_is_permitted_is_asked_anew_each_time() -> None:
    permitted: list[str] = []
    client = signed_in(permits=lambda _action, stream: stream in permitted)
    assert bare(client.says(send(1, to="all"))) == [error("not_allowed", 1)]
    permitted.append("all")
    assert client.says(send(2, to="all")) == []
    assert client.numbers() == [1]


@pytest.mark.parametrize("hello", [{}, {"device": "phone"}, {"device": None}])
def test_a_token_that_binds_a_device_makes_it_that_one(hello: dict[str, object]) -> None:
    client = Client(only_device="phone")
    client.says({"type": "hello", **hello})
    assert client.asked() == [Open("phone", {}, None)]


@pytest.mark.parametrize("device", ["default", "Phone", "tablet"])
def test_a_token_that_binds_a_device_opens_no_other(device: str) -> None:
    client = Client(only_device="phone")
    assert bare(client.says({"type": "hello", "device": device})) == [error("forbidden")]
    assert client.asked() == [Close(4105, "forbidden")]


def test_welcome_tells_for_how_long_the_sign_in_holds() -> None:
    client = Client()
    client.says({"type": "hello"})
    client.session.opened("n1", "e1", 25.0, {}, expires_in=60.5)
    assert client.hears()[0]["expires_in"] == 60.5
    again = Client()
    again.says({"type": "hello"})
    assert "expires_in" not in again.opens()[0]


def test_a_fresh_token_is_looked_at_and_answered() -> None:
    client = opened()
    client.says(AUTH)
    assert client.asked() == [Renew("t2", 9)]
    client.session.renewed(9, 300.0)
    assert client.hears() == [{"type": "authorised", "user": "ann", "expires_in": 300.0, "ref": 9}]


def test_a_token_does_not_hold_up_what_is_sent_with_it() -> None:
    client = opened()
    client.says(AUTH, send(1))
    assert [type(command).__name__ for command in client.asked()] == ["Renew", "Publish"]


def test_a_fresh_token_waits_for_welcome_like_everything_else() -> None:
    client = Client()
    client.says({"type": "hello"}, AUTH)
    assert client.asked() == [Open("default", {}, None)]
    client.opens()
    assert client.asked() == [Renew("t2", 9)]


def test_before_hello_a_token_is_told_that_hello_comes_first() -> None:
    assert bare(Client().says(AUTH)) == [error("hello_expected", 9)]


@pytest.mark.parametrize(("code", "close"), [("unauthorised", 4101), ("expired", 4102), ("forbidden", 4105)])
def test_a_token_that_is_refused_ends_the_connection(code: str, close: int) -> None:
    client = opened()
    client.says(AUTH)
    client.commands = []
    client.session.not_answered(WaypostError(code), 9)
    assert bare(client.hears()) == [error(code, 9)]
    assert client.commands == [Close(close, code)]


def test_a_token_that_nobody_can_look_at_now_may_be_shown_again() -> None:
    client = opened()
    client.says(AUTH)
    client.commands = []
    client.session.not_answered(WaypostError("unavailable"), 9)
    assert bare(client.hears()) == [error("unavailable", 9)]
    assert client.commands == []


def test_tokens_without_an_answer_count_as_unanswered() -> None:
    client = opened(unanswered_sends=2)
    client.says(AUTH, AUTH)
    assert not client.is_read()
    client.session.renewed(9, None)
    assert client.is_read()


# -- too fast ----------------------------------------------------------------------------------------------------------


def test_who_sends_too_fast_is_told_when_to_go_on_and_closed_with_4003() -> None:
    client = opened()
    client.says(send(1), send(2))
    client.commands = []
    client.session.failed(2, WaypostError("rate_limited", retry_after=1.5))
    [told] = client.hears()
    assert (told["code"], told["ref"], told["retry"], told["retry_after"]) == ("rate_limited", 2, True, 1.5)
    assert client.commands == [Close(4003, "rate_limited")]


def test_what_is_stored_is_answered_before_a_connection_that_is_too_fast_ends() -> None:
    client = opened()
    client.says(send(1), send(2))
    assert client.stored(1, at(1)) == [], "it waits for its place"
    client.session.failed(2, WaypostError("rate_limited", retry_after=1.0))
    assert [(frame["type"], frame["ref"]) for frame in client.hears()] == [("sent", 1), ("error", 2)]


def test_who_looks_back_too_often_is_closed_too() -> None:
    client = opened()
    client.says({"type": "history", "stream": "all", "ref": 3})
    client.commands = []
    client.session.not_answered(WaypostError("rate_limited", retry_after=2.0), 3)
    assert [(frame["code"], frame["ref"]) for frame in client.hears()] == [("rate_limited", 3)]
    assert client.commands == [Close(4003, "rate_limited")]
