"""The model beside the rules: its file, what it is told, and who has the last word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail import lists, model, phrases, rules, weighing, wording
from daemon.mail.model import LABELS, Weighed
from daemon.mail.wishes import Kind, Wish

WORDINGS = Path(__file__).parents[2] / "training" / "wordings"
LANGUAGES = {*phrases.languages(), "nb"}


def weighed(opt_out: float = 0.0, ordinary: float = 0.0, resubscribe: float = 0.0, review: float = 0.0) -> Weighed:
    return Weighed(dict(zip(LABELS, (opt_out, ordinary, resubscribe, review), strict=True)), ())


# ------------------------------------------------------------------ the file


def test_the_weights_are_there_and_small() -> None:
    table = model.weights()
    assert "" in table
    assert all(len(columns) == len(LABELS) for columns in table.values())
    assert (Path(model.__file__).parent / model.FILE).stat().st_size < 600_000


@settings(max_examples=50)
@given(st.sets(st.text(max_size=12), max_size=40))
def test_shares_add_up_whatever_the_features(features: set[str]) -> None:
    shares = model.weigh(features).shares
    assert set(shares) == set(LABELS)
    assert abs(sum(shares.values()) - 1) < 1e-9


def test_it_names_words_of_the_text() -> None:
    features = wording.features_of("", "Kindly strike me from your mailings for good.", is_answer=False)
    found = model.weigh(features)
    assert found.label == "opt-out"
    assert any("me" in reason.split() or "mailings" in reason for reason in found.reasons)


def test_length_alone_makes_it_no_surer() -> None:
    assert model.scale_of(100) > model.scale_of(1000)


# ------------------------------------------------------------------ the data it was trained from


@pytest.mark.parametrize("file", sorted(WORDINGS.glob("*.tsv")), ids=lambda path: path.stem)
def test_every_line_of_the_data_is_whole(file: Path) -> None:
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    assert rows
    for row in rows:
        assert len(row) == 5, row
        label, language, answer, subject, body = row
        assert label in LABELS
        assert language in LANGUAGES
        assert answer in ("0", "1")
        assert (subject + body).strip()


def test_training_and_reading_are_told_the_same(house: House) -> None:
    text = ("bye", "Please take me off. It was nice.")
    names = lists.names(house)
    assert wording.features_of(*text, is_answer=True, names=names) == wording.features_of(
        *text, is_answer=True, names=names
    )
    assert wording.features_of(*text, is_answer=True) != wording.features_of(*text, is_answer=False)


# ------------------------------------------------------------------ who has the last word


@pytest.mark.parametrize(
    ("wish", "shares", "kind"),
    [
        (Wish("opt-out", "2-opt-out"), weighed(0.5, 0.5), "opt-out"),
        (Wish("opt-out", "2-opt-out"), weighed(0.1, 0.9), "review"),
        (Wish("opt-out", "2-one-word"), weighed(0.1, 0.9), "opt-out"),
        (Wish("ordinary", "2-ordinary"), weighed(0.95, 0.05), "opt-out"),
        (Wish("ordinary", "2-ordinary"), weighed(0.80, 0.20), "review"),
        (Wish("ordinary", "2-ordinary"), weighed(0.10, 0.90), "ordinary"),
        (Wish("ordinary", "2-wants-to-stay"), weighed(0.99, 0.01), "review"),
        (Wish("ordinary", "2-wants-to-stay"), weighed(0.50, 0.50), "ordinary"),
        (Wish("review", "2-review-d-conditional"), weighed(0.90, 0.0, 0.0, 0.10), "review"),
        (Wish("review", "2-review-h-machine-text"), weighed(1.0), "review"),
        (Wish("review", "2-review-a-unclear"), weighed(0.05, 0.90, 0.0, 0.05), "ordinary"),
        (Wish("review", "2-review-b-privacy"), weighed(0.05, 0.90, 0.0, 0.05), "review"),
        (Wish("ordinary", "2-ordinary"), weighed(0.10, 0.20, 0.70), "resubscribe"),
        (Wish("ordinary", "2-ordinary"), weighed(0.90, 0.0, 0.10), "review"),
        (Wish("opt-out", "2-answer-to-quoted"), weighed(0.0, 1.0), "opt-out"),
    ],
)
def test_what_rules_and_model_come_to(wish: Wish, shares: Weighed, kind: Kind) -> None:
    wish.has_cause = True
    found, rule = weighing.weigh(wish, shares)
    assert found == kind
    assert rule in rules.RULES


def test_a_not_beside_a_removal_keeps_the_model_from_deciding() -> None:
    wish = Wish("review", "2-review-a-unclear", negated=True)
    assert weighing.weigh(wish, weighed(1.0))[0] == "review"


def test_odd_words_alone_raise_no_suspicion() -> None:
    assert weighing.weigh(Wish("ordinary", "2-ordinary"), weighed(0.1, 0.1, 0.0, 0.8))[0] == "ordinary"
