"""What a scenario is, how large it is, and the systems that scenarios share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

from tests.bench.cores import Cores
from tests.bench.sample import Sample
from tests.bench.systems import Absent, System


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. These are those of the short run."""

    repetitions: int = 3
    seconds: float = 1.0  # of flow, of each system in each case
    warm_s: float = 0.4  # of flow before that
    receivers: int = 1000  # of a fan-out
    pairs: int = 100  # who write to each other
    devices: int = 200  # that come back at once
    missed: int = 500  # messages of each, when it comes back
    streams: int = 20  # over which they are spread
    dropped: int = 2000  # connections that are dropped and come back
    idle: int = 5000  # connections that say nothing
    idlers: tuple[str, ...] = ("waypost", "socket.io")  # whose connections: each takes half a minute
    rest_s: float = 26.0  # of silence: a node pings each connection every 25 s
    groups: int = 100  # that batches are published to
    batch: int = 50  # messages of a call
    entries: tuple[int, ...] = (1_000, 100_000, 1_000_000)  # of a stream that grows
    inboxes: tuple[int, ...] = (10, 1_000, 100_000)  # of a store that grows
    rounds: int = 10  # over the sizes of what grows


LONG = Sizes(repetitions=7, seconds=4.0, rounds=30, idlers=("floor", "waypost", "socket.io", "python-socketio"))


class Stage:
    """The systems, each started when it is first asked for and kept to the end. What is not there is said once.

    A scenario that leaves much behind (streams that a node follows for a while, users that a store knows) has systems
    of its own, named by its `purpose`: else those that come after it would pay for it.
    """

    def __init__(
        self, product: str, kinds: Sequence[type[System]], say: Callable[[str], None], cores: Cores | None = None
    ) -> None:
        self.product = product
        self.say = say
        self.cores = cores
        self._kinds = kinds
        self._systems: dict[tuple[str, int, str], System] = {}
        self._absent: set[type[System]] = set()

    def wants(self, kind: type[System]) -> bool:
        """Whether this system is to take part, if it is here."""
        return kind in self._kinds

    async def systems(self, nodes: int = 1, purpose: str = "") -> dict[str, System]:
        """All that are here and can be had with so many nodes, by name."""
        found = {}
        for kind in self._kinds:
            system = await self.system(kind, nodes, purpose)
            if system is not None:
                found[kind.name] = system
        return found

    async def system(self, kind: type[System], nodes: int = 1, purpose: str = "") -> System | None:
        """The one that is kept, None when it is not here, or not wanted."""
        place = (kind.name, nodes, purpose)
        if place not in self._systems:
            system = await self.fresh(kind, nodes)
            if system is None:
                return None
            self._systems[place] = system
        return self._systems[place]

    async def fresh(self, kind: type[System], nodes: int = 1) -> System | None:
        """One of its own, which the caller stops. None when it is not here, or not wanted."""
        if not self.wants(kind) or kind in self._absent or nodes > kind.nodes_max:
            return None
        return await self.started(kind(self.product, nodes))

    async def started(self, system: System) -> System | None:
        """The same system, started; None when it cannot be."""
        try:
            await system.start()
        except Absent as problem:
            system.stop()
            self._absent.add(type(system))
            self.say(f"left out: {problem}")
            return None
        except BaseException:
            system.stop()
            raise
        self.settle(system.pids)
        return system

    def settle(self, pids: list[int]) -> None:
        """Servers that have been started go where servers are to run."""
        if self.cores is not None:
            self.cores.give(pids)

    def stop(self) -> None:
        for system in self._systems.values():
            system.stop()
        self._systems.clear()


class Scenario(ABC):
    """One thing that is measured, in one case or several, for several contestants, again and again."""

    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[dict[str, str]]  # figure → what stands above it
    compared: ClassVar[str] = ""  # the figure by which contestants are compared
    drawn: ClassVar[str] = ""  # the figure of the plot, where it is another
    repetitions_max: ClassVar[int | None] = None

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        self.stage = stage
        self.sizes = sizes

    @abstractmethod
    async def start(self) -> list[str]:
        """Makes ready, and returns who takes part; nobody: the scenario is left out."""

    @abstractmethod
    async def measure(self, contestant: str) -> dict[str, Sample]:
        """One repetition: case → what was found."""

    async def stop(self) -> None:  # noqa: B027 - most have nothing to end
        """Ends what `start` has begun, beside what the stage keeps."""
