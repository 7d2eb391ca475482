"""What one measurement found: the figures of one system in one case of a scenario, and what was wrong."""

import msgspec


class Sample(msgspec.Struct):
    """Figures by name; `us` is CPU in µs, server and Redis together, where there is both. Latencies are in ms."""

    figures: dict[str, float]
    lost: int = 0
    doubled: int = 0
    unordered: int = 0
    problems: list[str] = []

    @property
    def is_clean(self) -> bool:
        """Whether everything came, once and in order, and nothing else happened."""
        return not (self.lost or self.doubled or self.unordered or self.problems)

    @property
    def wrong(self) -> str:
        """What is not as it should be, "" when all is."""
        counts = {"lost": self.lost, "doubled": self.doubled, "out of order": self.unordered}
        said = [f"{count} {what}" for what, count in counts.items() if count]
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            said.append(self.problems[0] + more)
        return ", ".join(said)
