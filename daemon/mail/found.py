"""What the sentences of a text were found to say, in one language."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Found:
    """Sentence numbers by what was made of them ("ask", "product", "pause", ...)."""

    by: dict[str, set[int]] = field(default_factory=dict)

    def add(self, what: str, n: int) -> None:
        """Note that sentence `n` says this."""
        self.by.setdefault(what, set()).add(n)

    def __getitem__(self, what: str) -> set[int]:
        return self.by.get(what, set())
