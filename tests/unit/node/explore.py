"""Tries every order of steps of a model, going on once from each state that can be reached.

A node with its tasks cannot be copied: to go back to a state, its history is done again in a new world, which takes
about a millisecond. What is found is told with the steps that lead there, and no step more than it takes.
"""

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from tests.unit.node.by_hand import Loop
from tests.unit.node.standing import standing
from tests.unit.node.world import Model, World

History = tuple[str, ...]

WORLDS_PER_COLLECTION = 500  # a world is one knot of objects; to look for knots at every turn takes half of the time


class Found(AssertionError):
    """A promise is broken: how, and after which steps."""


@contextmanager
def _world_after(model: Model, history: History) -> Iterator[World]:
    with Loop() as loop:  # type: ignore[abstract]  # as much of a loop as is used
        world = World(model, loop)
        for step in history:
            world.do(step)
        yield world


class _States:
    """The states of a model that were reached, by number."""

    def __init__(self) -> None:
        self.histories: list[History] = []  # one that leads there
        self.at_rest: list[int] = []
        self._numbers: dict[bytes, int] = {}
        self._before: list[list[int]] = []  # those from which work leads there

    def reached(self, world: World, history: History, before: int | None) -> tuple[int, bool]:
        """The number of the state that a world is in, and whether it is new. `before`: from where work led there."""
        # Not `hash`: it is the same for -1 and -2. Not the value itself: a million tuples are slow to look through.
        digest = blake2b(repr(standing(world)).encode(), digest_size=16).digest()
        number = self._numbers.setdefault(digest, len(self.histories))
        is_new = number == len(self.histories)
        if is_new:
            self.histories.append(history)
            self._before.append([])
        if before is not None:
            self._before[number].append(before)
        return number, is_new

    def check_rest_is_reached(self) -> None:
        """From every state the work alone must lead to one where nothing is left to do."""
        reaching, frontier = set(self.at_rest), [*self.at_rest]
        while frontier:
            new = set(self._before[frontier.pop()]) - reaching
            reaching |= new
            frontier += new
        for state, history in enumerate(self.histories):
            if state not in reaching:
                raise Found("it never comes to rest after:\n  " + "\n  ".join(history))


def explore(model: Model) -> int:
    """Looks at every state of a model; returns how many there are. Raises `Found`.

    After each step nothing may be wrong; where nothing is on its way, everything must be there; and from every state
    the work alone must lead to such a place.
    """
    states = _States()
    to_do: list[tuple[History, int | None]] = [((), None)]  # and the state before the last step, if that was work
    gc.disable()
    try:
        for worlds in itertools.count(1):
            if not to_do:
                break
            if worlds % WORLDS_PER_COLLECTION == 0:
                gc.collect()
            to_do += _go_on(model, states, *to_do.pop())
    finally:
        gc.enable()
    states.check_rest_is_reached()
    return len(states.histories)


def _go_on(model: Model, states: _States, history: History, before: int | None) -> list[tuple[History, int | None]]:
    """Does a history, and goes on from there as long as that leads to new states; returns what else could be done."""
    left: list[tuple[History, int | None]] = []
    try:
        with _world_after(model, history) as world:
            while True:
                number, is_new = states.reached(world, history, before)
                if not is_new:
                    return left
                _check(world, model, history)
                steps: list[tuple[History, int | None]] = [((*history, step), number) for step in world.work()]
                if not steps:
                    states.at_rest.append(number)
                steps += [((*history, step), None) for step in world.events()]
                if not steps:
                    return left
                left += steps[1:]
                history, before = steps[0]
                world.do(history[-1])
    except Exception as problem:
        raise _found(problem, model, history) from problem


def _check(world: World, model: Model, history: History) -> None:
    """What must be so where such a history led to. The world is not changed: for time to pass, another is made."""
    world.check()
    if any(world.work()):
        return
    if not world.needs_time:
        world.check_at_rest()
        return
    with _world_after(model, history) as later:
        later.rest()
        later.check_at_rest()


def _found(problem: Exception, model: Model, history: History) -> Found:
    """Tells it with the steps it takes: each that can be left out is."""
    at = len(history) - 1
    while at >= 0:
        shorter = history[:at] + history[at + 1 :]
        again = _problem_of(model, shorter)
        if again is not None:
            problem, history = again, shorter
        at -= 1
    return Found(f"{problem}\nafter:\n  " + "\n  ".join(history))


def _problem_of(model: Model, history: History) -> Exception | None:
    """What is wrong at the end of a history; None when all is well, or when there is no such history."""
    with _world_after(model, ()) as world:
        try:
            for step in history:
                if step not in (*world.work(), *world.events()):
                    return None
                world.do(step)
            _check(world, model, history)
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is what we look for
            return problem
    return None
