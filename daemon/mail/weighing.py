"""Rules and model together: what is asked, when both have been heard.

The rules find a request and can say why; the model has read many more ways to put it. To act without a person both
must agree, or one be sure and the other not object: a false opt-out is the worst error. What either suspects goes to
review. The shares that are asked for were set by cross-validation (training/README.md).
"""

from __future__ import annotations

from typing import Final

from daemon.mail.model import Weighed
from daemon.mail.wishes import Kind, Wish

AGREES: Final = 0.33  # the rules found a request: the model's share of opt-out from which it is acted on
SURE: Final = 0.87  # the rules found nothing, or nothing whole: the share from which it is a request all the same
SURE_AGAINST_DOUBT: Final = 0.95  # the rules found a doubt of their own
SUSPECTS: Final = 0.25  # the share of opt-out from which a person looks, even where ordinary is likelier
NO_CAUSE: Final = 0.50  # the same where no word of the text touches mailings, leaving, displeasure or rights
DOUBTS_STAYING: Final = 0.60  # the same where the rules found that he wants to stay
INNOCENT: Final = 0.60  # the share of ordinary from which a vague suspicion of the rules is dropped
COMES_BACK: Final = 0.50
MAY_COME_BACK: Final = 0.06  # above this share of resubscribe the model alone decides for no opt-out

# What the rules have said for good, however the words weigh.
_FINAL: Final = frozenset(("2-review-h-machine-text", "2-answer-to-quoted", "1-nothing-said"))
# No request, however the words weigh: at most a person looks.
_NEVER_ASKS: Final = frozenset(
    (
        "2-wants-to-stay",
        "2-resubscribe",
        "2-review-contradiction",
        "2-review-c-displeasure",
        "2-review-f-domain",
        "2-review-f-many",
        "0.4-offers-opt-out",
    )
)
# Suspicions without a finding of their own.
_VAGUE: Final = frozenset(
    (
        "2-review-a-unclear",
        "2-review-c-displeasure",
        "2-review-d-fewer",
        "2-review-d-pause",
        "2-review-e-address-change",
    )
)
_FINDS_NOTHING: Final = frozenset(("2-ordinary", "2-other-matter", "2-review-a-unclear", "2-review-b-privacy"))


def weigh(wish: Wish, weighed: Weighed) -> tuple[Kind, str]:
    """(kind, rule) of a text: what `wish` says by the rules, and what the model makes of it."""
    shares = weighed.shares
    opt_out, ordinary = shares["opt-out"], shares["ordinary"]
    if wish.rule in _FINAL:
        return wish.kind, wish.rule
    if wish.kind == "opt-out":
        agreed = opt_out >= AGREES or wish.rule == "2-one-word"
        return ("opt-out", wish.rule) if agreed else ("review", "2-weighed-doubt")
    sure = SURE if wish.rule in _FINDS_NOTHING and not wish.told else SURE_AGAINST_DOUBT
    barred = wish.rule in _NEVER_ASKS or wish.negated or shares["resubscribe"] > MAY_COME_BACK
    if opt_out >= sure and not barred:
        return "opt-out", "2-weighed"
    if shares["resubscribe"] >= COMES_BACK or (wish.kind == "resubscribe" and weighed.label == "resubscribe"):
        return "resubscribe", "2-resubscribe" if wish.kind == "resubscribe" else "2-weighed-resubscribe"
    if wish.kind in ("review", "resubscribe"):
        if ordinary >= INNOCENT and opt_out < SUSPECTS and wish.rule in _VAGUE:
            return "ordinary", "2-weighed-ordinary"
        return "review", wish.rule if wish.kind == "review" else "2-weighed-doubt"
    if wish.rule == "2-wants-to-stay" and opt_out < DOUBTS_STAYING:
        return "ordinary", wish.rule
    if (weighed.label != "ordinary" or opt_out >= SUSPECTS) and (wish.has_cause or opt_out >= NO_CAUSE):
        return "review", "2-weighed-doubt"
    return "ordinary", wish.rule
