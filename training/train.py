"""Train the model of daemon/mail/model.py from training/wordings/*.tsv, and show what it is worth on lines not trained on.

    pip install -e '.[training]'
    python -m training.train                  # cross-validate, train on everything, write daemon/mail/model.tsv.xz
    python -m training.train --only-validate  # write nothing

A line of the data: label, language, 1 if it answers a mailing, subject, body (newlines as \\n), parted by tabs; only the
writer's own words. Labels: opt-out, ordinary, resubscribe, review, as docs/triage.md and the corpus' rules have it.
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from daemon.mail import lists, model, wording
from training.house import HOUSE

ROOT: Final = Path(__file__).parents[1]
STRENGTH: Final = 0.1  # of the regularisation: C of LogisticRegression
SEEN: Final = 2  # a feature in fewer lines than that says nothing
SMALLEST: Final = 2  # hundredths: lighter weights are left out
BLOCK: Final = 40  # neighbouring lines of one author often are twins: they stay together in cross-validation
FOLDS: Final = 8


@dataclass(frozen=True)
class Line:
    """One line of the data."""

    label: str
    language: str
    features: tuple[str, ...]
    block: int


def lines() -> Iterator[Line]:
    """All of training/wordings."""
    names = lists.names(HOUSE)
    block = 0
    for file in sorted((ROOT / "training" / "wordings").glob("*.tsv")):
        for n, row in enumerate(file.read_text(encoding="utf-8").splitlines()):
            label, language, answer, subject, body = row.split("\t")
            block += n % BLOCK == 0
            found = wording.features_of(subject, body.replace("\\n", "\n"), is_answer=answer == "1", names=names)
            yield Line(label, language, tuple(sorted(found)), block)
        block += 1


def matrix(data: list[Line]) -> tuple[Any, list[str]]:
    """(lines x features, the features' names), of features seen often enough."""
    count: dict[str, int] = {}
    for line in data:
        for name in line.features:
            count[name] = count.get(name, 0) + 1
    names = sorted(name for name, times in count.items() if times >= SEEN)
    at = {name: n for n, name in enumerate(names)}
    rows = [(n, at[name]) for n, line in enumerate(data) for name in line.features if name in at]
    counts = [model.scale_of(len(data[n].features)) for n, _ in rows]
    return csr_matrix((np.array(counts, np.float32), np.array(rows).T), shape=(len(data), len(names))), names


def fit(features: Any, labels: Any) -> LogisticRegression:
    """A model of these lines."""
    return LogisticRegression(C=STRENGTH, max_iter=1000).fit(features, labels)


def validate(features: Any, data: list[Line]) -> None:
    """Train on seven eighths, look at the last, in turn; say how the shares fell, by language."""
    labels = np.array([line.label for line in data])
    shares = np.zeros((len(data), len(model.LABELS)))
    for learnt, held in GroupKFold(FOLDS).split(features, labels, [line.block for line in data]):
        shares[held] = fit(features[learnt], labels[learnt]).predict_proba(features[held])
    languages = np.array([line.language for line in data])
    print("language  lines  right   opt-out share from which 95 / 98 % of the lines above it are opt-outs: found")
    for language in ("", *sorted(set(languages))):
        mask = (languages == language) if language else np.ones(len(data), bool)
        print(f"{language or 'all':8} {mask.sum():6}  {_told(shares[mask], labels[mask])}")


def _told(shares: Any, labels: Any) -> str:
    asked = labels == "opt-out"
    share = shares[:, model.LABELS.index("opt-out")]
    order = np.argsort(-share)
    right = np.cumsum(asked[order]) / np.arange(1, len(order) + 1)
    out = [f"{np.mean(np.array(model.LABELS)[shares.argmax(1)] == labels):6.1%}"]
    for precision in (0.95, 0.98):
        enough = np.where(right >= precision)[0]
        found = asked[order][: enough[-1] + 1].sum() / max(asked.sum(), 1) if len(enough) else 0.0
        out.append(f"{share[order][enough[-1]] if len(enough) else 1:.2f}: {found:5.1%}")
    return "  ".join(out)


def write(fitted: LogisticRegression, names: list[str]) -> None:
    """The weights as hundredths, a line a feature, sorted: the same data give the same file."""
    assert tuple(fitted.classes_) == model.LABELS
    table = [("", np.rint(fitted.intercept_ * 100).astype(int))]
    for name, column in zip(names, np.rint(fitted.coef_.T * 100).astype(int), strict=True):
        if np.abs(column).max() >= SMALLEST:
            table.append((name, column))
    text = "".join(f"{name}\t" + "\t".join(map(str, column)) + "\n" for name, column in table)
    path = ROOT / "daemon" / "mail" / model.FILE
    path.write_bytes(lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(table)} features, {path.stat().st_size:,} octets: {path.relative_to(ROOT)}")


def main() -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-validate", action="store_true")
    parser.add_argument("--only-train", action="store_true")
    wanted = parser.parse_args()
    data = list(lines())
    features, names = matrix(data)
    print(f"{len(data)} lines, {len(names)} features seen {SEEN} times or more")
    if not wanted.only_train:
        validate(features, data)
    if not wanted.only_validate:
        write(fit(features, np.array([line.label for line in data])), names)


if __name__ == "__main__":
    main()
