"""The writers' own words of a labelled corpus, as lines for training/wordings.

    python training/own_words.py tests/corpus tests/corpus/red/* > training/wordings/corpus.tsv

DIR has the messages (or DIR/mail) and a truth.csv. Left out is what other things than the words decided: machine mail,
the sender's trust, whose address it is.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from daemon.mail import addresses, message, model, own, triage
from training.house import HOUSE

_NOT_BY_WORDS: Final = ("0.", "1-", "4-", "h-", "3.4", "2-review-f", "2-review-g-not")


def line(raw: bytes, label: str, language: str) -> str | None:
    """A line of training data; None where not the words decided."""
    if any(rule.startswith(_NOT_BY_WORDS) for rule in triage.read(raw, HOUSE).rules):
        return None
    taken = message.take_apart(raw)
    authors = [author for value in taken.fields.all("from")[:5] for author in addresses.read(value)]
    name, writer = authors[0] if len(authors) == 1 else ("", "")
    text = own.read(taken, HOUSE, name, writer)
    if text.body.answers or not (text.subject + text.body.text).strip():
        return None
    body = text.body.text.strip().replace("\\", "/").replace("\t", " ").replace("\n", "\\n")
    return "\t".join((label, language, str(int(text.to_mailing)), text.subject.replace("\t", " "), body))


def main(directories: list[str]) -> None:
    """As the module says."""
    for directory in map(Path, directories):
        with (directory / "truth.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found = next(d / row["file"] for d in (directory, directory / "mail") if (d / row["file"]).exists())
                written = line(found.read_bytes(), row["label"], row["lang"]) if row["label"] in model.LABELS else None
                if written is not None:
                    print(written)


if __name__ == "__main__":
    main(sys.argv[1:])
