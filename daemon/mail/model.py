"""The weighing of features: a small linear model, trained in this repository (training/), beside the rules.

Multinomial logistic regression: a weight for each feature and label, a sum, and the exponentials of it as shares. Nothing
is hidden: `reasons` names the words that weighed most, and model.tsv can be read with a pager.
"""

from __future__ import annotations

import functools
import importlib.resources
import lzma
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LABELS: Final = ("opt-out", "ordinary", "resubscribe", "review")
FILE: Final = "model.tsv.xz"
_SCALE: Final = 100.0  # weights are written as hundredths


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the model makes of a text: label -> share (they add up to 1), and the words that spoke most for the first."""

    shares: dict[str, float]
    reasons: tuple[str, ...]

    @property
    def label(self) -> str:
        """The likeliest label."""
        return max(self.shares, key=self.shares.__getitem__)


NOTHING: Final = Weighed({"opt-out": 0.0, "ordinary": 1.0, "resubscribe": 0.0, "review": 0.0}, ())


@functools.cache
def weights() -> dict[str, tuple[float, ...]]:
    """Feature -> its weights, in the order of LABELS; "" is the bias. Read on first use (0.1 s)."""
    packed = importlib.resources.files("daemon.mail").joinpath(FILE).read_bytes()
    table = {}
    for line in lzma.decompress(packed).decode("utf-8").splitlines():
        name, *numbers = line.split("\t")
        table[name] = tuple(int(number) / _SCALE for number in numbers)
    return table


def speaks_for(label: str, features: Iterable[str]) -> float:
    """How much these features of a text say for a label, against the mean of the others."""
    table, at = weights(), LABELS.index(label)
    known = [table[name] for name in features if name in table]
    return sum(w[at] - (sum(w) - w[at]) / (len(LABELS) - 1) for w in known)


def scale_of(features: int) -> float:
    """What each feature of a text counts: less in a long one, or its mere length would make it sure of itself."""
    return 15 / math.sqrt(max(features, 1))


def weigh(features: Iterable[str]) -> Weighed:
    """The shares of the labels for a text with these features."""
    table, names = weights(), set(features)
    known = [(name, table[name]) for name in names if name in table]
    scale = scale_of(len(names))
    sums = [bias + scale * sum(column) for bias, *column in zip(table[""], *(w for _, w in known), strict=True)]
    top = max(sums)
    exponentials = [math.exp(s - top) for s in sums]
    total = sum(exponentials)
    shares = dict(zip(LABELS, (e / total for e in exponentials), strict=True))
    first = max(range(len(LABELS)), key=lambda n: sums[n])
    said = sorted(((w[first] - w[1 if first != 1 else 0], name) for name, w in known), reverse=True)
    shown = [text for weight, name in said if weight > 0 and (text := _readable(name))]
    return Weighed(shares, tuple(dict.fromkeys(shown))[:5])


def _readable(feature: str) -> str:
    """The words of a feature that a person can find in the text; "" for one that says nothing to him."""
    kind, *words = feature.split(" ")
    words = [word for word in words if word not in ("^", "$", "?")]
    if kind == "G" and len(words) == 2:
        return f"{words[0]} ... {words[1]}"
    return " ".join(words) if kind == "W" and (len(words) > 1 or len("".join(words)) > 4) else ""
