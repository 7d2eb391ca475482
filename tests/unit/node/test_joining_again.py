"""Joining again where the store has lost the joining before: a story of `world.py` that no model may contain, because
its connection follows for a while what is not its user's any more (docs/reliability.md, "What is not promised").
"""

from tests.unit.node.by_hand import Loop
from tests.unit.node.world import Model, World


def test_who_joins_again_what_was_lost_with_the_data_is_answered_when_the_reader_gets_there() -> None:
    """The connection is still live on the group, so no page and no end of a membership comes before the joining."""
    with Loop() as loop:  # type: ignore[abstract]  # as much of a loop as is used
        model = Model(events={}, phones="a", there="a", members="z", follows=("user:a", "group:g"))
        world = World(model, loop)
        world.do("server saves")
        world.do("a joins")
        world.do("server restarts")
        world.rest()
        phone = world.phones["a"]
        assert phone.connection is not None
        assert phone.connection.is_live("group:g")

        world.do("a joins")
        world.wait()
        assert sorted(phone.answers) == phone.asked == [1, 2]
        assert phone.answers[2]["type"] == "joined"
        world.check_at_rest()
