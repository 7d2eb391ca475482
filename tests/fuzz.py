"""What fuzzing over the wire and over HTTP shares: names, JSON and broken bytes, the same ones in each run."""

from typing import Self

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.integration.wire.kit import Net, join
from tests.service import Phone

LISTENED = "fuzzed"  # the group in which somebody speaks and somebody listens

# No shrinking: a failure prints all that was sent, and its parts are independent of each other. No database: each run
# asks the same things.
SETTINGS = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}


def bounded(examples: int) -> settings:
    """So many examples, always the same ones."""
    return settings(max_examples=examples, **SETTINGS)  # type: ignore[arg-type]


ODD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    " ",
    "%00",
    "\x00",
    "é",
    "e\u0301",
    "½",
    "\u202e",
    "x" * 128,
    "x" * 129,
    "🦊",
    "__proto__",
    "{}",
]


def names(*known: str) -> st.SearchStrategy[str]:
    """Names: those of this test more often than others, odd ones, and any text."""
    return st.one_of(st.sampled_from(known), st.sampled_from(known), st.sampled_from(ODD_NAMES), st.text(max_size=12))


ANY_JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were whole: cut off, with something put in, repeated, or with a byte turned over."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "put in", "turn", "repeat", "lose"])):
            case "cut":
                data = data[:at]
            case "put in":
                data = data[:at] + draw(st.binary(min_size=1, max_size=6)) + data[at:]
            case "turn":
                data = (
                    data[:at]
                    + bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[at : at + 1])
                    + data[at + 1 :]
                )
            case "repeat":
                data = data[:at] + data[max(0, at - 20) : at] * draw(st.integers(1, 50)) + data[at:]
            case _:
                data = data[:at] + data[at + draw(st.integers(1, 20)) :]
    return data


class Listening:
    """Somebody who speaks in a group, and somebody who must hear all of it."""

    @classmethod
    async def begin(cls, net: Net) -> Self:
        """Both are connected, and members of the group."""
        speaker, listener = await net.open("speaker"), await net.open("listener")
        for phone in (speaker, listener):
            assert (await join(phone, LISTENED))["type"] == "joined"
        return cls(speaker, listener)

    def __init__(self, speaker: Phone, listener: Phone) -> None:
        self._speaker = speaker
        self._listener = listener
        self._spoken = 0

    async def check(self) -> None:
        """One more message comes, and it is the next of all that were sent."""
        self._spoken += 1
        answer = await self._speaker.send(f"group:{LISTENED}", self._spoken)
        assert answer["type"] == "sent", answer
        await self._listener.until(lambda: len(self.heard()) >= self._spoken, "the message")
        assert self.heard() == list(range(1, self._spoken + 1))

    def heard(self) -> list[object]:
        return [one["body"] for one in self._listener.messages(f"group:{LISTENED}") if one["from"] == "speaker"]
