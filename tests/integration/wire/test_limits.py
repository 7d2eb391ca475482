"""Limits: who goes too fast or takes too much is told when to come back, and closed; others feel nothing."""

import pytest

from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, join
from tests.service import Phone

pytestmark = pytest.mark.anyio


async def too_fast(phone: Phone) -> float:
    """The connection was told that it is too fast, and closed; returns after how many seconds it may come back."""
    assert await phone.ends() == 4003
    error = phone.frames[-1]
    assert (error["type"], error["code"], error["retry"]) == ("error", "rate_limited", True)
    return float(error["retry_after"])


async def send_fast(phone: Phone, to: str, count: int) -> None:
    for number in range(count):
        await phone.say(type="send", ref=number, to=to, body=number, key=f"k{number}")


async def test_a_connection_that_sends_too_fast_is_told_and_closed_and_others_feel_nothing(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    slow = net.at(start_node(limits_connection_sends_per_s=0.1, limits_connection_sends_burst=10))
    fast, other, listener = await slow.open(alice), await slow.open(alice, "tablet"), await slow.open(bob)
    await fast.send_all(f"user:{bob}", range(10))
    await send_fast(fast, f"user:{bob}", 3)
    assert 0 < await too_fast(fast) <= 10
    assert [fast.answer_to(number) is not None for number in range(3)] == [True, False, False]
    assert (await other.send(f"user:{bob}", "from the tablet"))["type"] == "sent"
    await listener.wait("message", body="from the tablet")
    assert listener.bodies() == [*range(10), "from the tablet"]
    again = await slow.open(alice)
    assert (await again.send(f"user:{bob}", 0, key="k0"))["duplicate"] is False


async def test_what_one_user_sends_is_counted_over_all_nodes(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    limits = {"limits_user_sends_per_s": 0.05, "limits_user_sends_burst": 10}
    near, far = net.at(start_node(**limits)), net.at(start_node(**limits, audit_s=59))
    first, second, listener = await near.open(alice), await far.open(alice), await far.open(bob)
    await first.send_all(f"user:{bob}", range(6))
    await second.send_all(f"user:{bob}", range(6, 10))
    await second.say(type="send", ref="over", to=f"user:{bob}", body="over")
    assert 0 < await too_fast(second) <= 20
    assert (second.answer_to("over") or {})["code"] == "rate_limited"
    assert (await listener.send(f"user:{alice}", "I am not limited"))["type"] == "sent"
    assert listener.bodies() == list(range(10))


async def test_a_repeat_of_what_is_stored_costs_nothing(net: Net, start_node: StartNode, alice: str, bob: str) -> None:
    limited = net.at(start_node(limits_user_sends_per_s=0.05, limits_user_sends_burst=3))
    phone = await limited.open(alice)
    for number in range(3):
        await phone.send(f"user:{bob}", number, key=f"k{number}")
    for number in range(3):
        assert (await phone.send(f"user:{bob}", number, key=f"k{number}"))["duplicate"] is True


async def test_nothing_that_was_sent_after_a_refusal_overtakes_it(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    limited = net.at(start_node(limits_user_sends_per_s=5, limits_user_sends_burst=5))
    phone, listener = await limited.open(alice), await limited.open(bob)
    await send_fast(phone, f"user:{bob}", 500)
    await too_fast(phone)
    stored = [number for number in range(500) if (phone.answer_to(number) or {}).get("type") == "sent"]
    await limited.open(bob, "look")
    await (await limited.open(f"{alice}x")).send(f"user:{bob}", "end")
    await listener.wait("message", body="end")
    got = listener.bodies()[:-1]
    assert got == list(range(len(got))), "no number is left out"
    assert set(stored) <= set(got)


async def test_joins_are_limited_for_a_user_on_a_node(net: Net, start_node: StartNode, alice: str, group: str) -> None:
    limited = net.at(start_node(limits_user_joins_per_s=0.05, limits_user_joins_burst=3))
    phone, other = await limited.open(alice), await limited.open(alice, "tablet")
    for at in range(2):
        assert (await join(phone, f"{group}{at}"))["type"] == "joined"
    assert (await join(other, f"{group}2"))["type"] == "joined"
    await phone.say(type="join", group=f"{group}3", ref="over")
    await too_fast(phone)
    assert (phone.answer_to("over") or {})["code"] == "rate_limited"
    assert other.closed is None


async def test_joining_what_one_is_in_costs_nothing(net: Net, start_node: StartNode, alice: str, group: str) -> None:
    limited = net.at(start_node(limits_user_joins_per_s=0.05, limits_user_joins_burst=2))
    phone = await limited.open(alice)
    for _ in range(5):
        assert (await join(phone, group))["type"] == "joined"
    assert (await join(phone, f"{group}2"))["type"] == "joined"


async def test_coming_again_and_again_is_limited(net: Net, start_node: StartNode, alice: str, bob: str) -> None:
    limited = net.at(start_node(limits_user_requests_per_s=0.05, limits_user_requests_burst=2))
    for _ in range(2):
        await (await limited.open(alice)).leave()
    again = await limited.dial(alice)
    assert await too_fast(again) >= 1
    assert (await limited.open(bob)).closed is None


async def test_looks_into_history_are_limited_for_a_user_on_a_node(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    limited = net.at(start_node(limits_user_histories_per_s=0.05, limits_user_histories_burst=3))
    phone, other = await limited.open(alice), await limited.open(bob)
    for ref in range(4):
        await phone.say(type="history", stream="all", ref=ref)
    await too_fast(phone)
    await other.say(type="history", stream="all", ref=1)
    await other.wait("history", ref=1)


async def test_one_user_has_so_many_connections_to_a_node(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    limited = net.at(start_node(limits_connections_per_user=2))
    first, _second = await limited.open(alice), await limited.open(alice, "tablet")
    third = await limited.dial(alice)
    assert await third.ends() == 4107
    assert third.frames[-1]["code"] == "too_many_connections"
    assert (await limited.open(bob)).closed is None
    await first.leave()
    assert (await limited.open(alice, "watch")).closed is None


async def test_one_user_has_so_many_devices(net: Net, start_node: StartNode, alice: str) -> None:
    limited = net.at(start_node(limits_devices_per_user=2))
    for device in ("phone", "tablet", "phone"):
        await (await limited.open(alice, device)).leave()
    third = await limited.dial(alice)
    await third.say(type="hello", device="watch")
    assert await third.ends() == 4105
    assert third.frames[-1]["code"] == "too_many_devices"


async def test_a_group_has_so_many_members(net: Net, start_node: StartNode, alice: str, bob: str, group: str) -> None:
    limited = net.at(start_node(limits_members_per_group=1))
    assert (await join(await limited.open(alice), group))["type"] == "joined"
    assert (await join(await limited.open(bob), group))["code"] == "group_full"


async def test_welcome_tells_how_fast_a_connection_may_send(net: Net, start_node: StartNode, alice: str) -> None:
    limited = net.at(start_node(limits_connection_sends_per_s=7.5, limits_connection_sends_burst=10))
    limits = (await limited.open(alice)).welcome()["limits"]
    assert (limits["connection_sends_per_s"], limits["connection_sends_burst"]) == (7.5, 10)
    assert (await net.open(alice)).welcome()["limits"]["connection_sends_per_s"] == 0, "in dev mode, unless it is set"
