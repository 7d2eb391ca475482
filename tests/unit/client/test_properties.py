"""Whatever happens to connections and to the server, the program gets each entry once, in order, and loses none."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.client.model import STREAMS, World

stream = st.sampled_from(STREAMS)
count = st.integers(1, 5)
steps = st.one_of(
    st.tuples(st.just("append"), stream),
    st.tuples(st.just("append"), stream),
    st.tuples(st.just("push"), stream, count),
    st.tuples(st.just("push"), stream, count),
    st.tuples(st.just("take"), count),
    st.tuples(st.just("connect")),
    st.tuples(st.just("cut")),
    st.tuples(st.just("serve")),
    st.tuples(st.just("speak")),
    st.tuples(st.just("hear")),
    st.tuples(st.just("send"), stream),
    st.tuples(st.just("trim"), stream, count),
    st.tuples(st.just("repeat"), stream),
    st.tuples(st.just("skip"), stream),
    st.tuples(st.just("wait"), st.sampled_from((0.3, 1.0, 20.0, 100.0))),
    st.tuples(st.just("fate"), st.sampled_from(("lost", "unheard", "unavailable", "uncertain", "stored"))),
)


def play(world: World, step: tuple[object, ...]) -> None:
    name, *arguments = step
    if name == "fate":
        world.fate.append(str(arguments[0]))
    else:
        getattr(world, str(name))(*arguments)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=80))
@example([("append", "all"), ("connect",), ("push", "all", 1), ("cut",), ("append", "all"), ("connect",)])
def test_over_any_cut_everything_comes_once_and_in_order(story: list[tuple[object, ...]]) -> None:
    world = World()
    for step in story:
        play(world, step)
    world.settle()
    for name, kept in world.streams.items():
        head = len(kept.ids) - 1
        assert world.taken[name] == head, f"{name} ends at {world.taken[name]}, not at {head}"
        assert all(n <= kept.floor for n in world.missed[name]), "a gap for what still exists"
        assert world.stored[name] == head, "not everything that was taken is acknowledged"


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=80))
def test_each_send_is_stored_once_in_the_order_of_the_calls(story: list[tuple[object, ...]]) -> None:
    world = World()
    for step in story:
        play(world, step)
    world.settle()
    assert all(operation.is_settled for operation in world.operations)
    assert world.order == [f"key{operation.number}" for operation in world.operations]
    for operation in world.operations:
        assert operation.answer is not None
        assert operation.answer.id == str(world.keys[f"key{operation.number}"][0])
