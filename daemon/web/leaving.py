"""What the buttons that take away have in common: it is written down under the very key the token names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from daemon import events
from daemon.intake import clicking
from daemon.mail import tokens
from daemon.mail.tokens import Token
from daemon.web.context import Context
from storage import suppressions
from storage.engine import Unavailable
from storage.write import write


def leave(
    context: Context, token: Token, scopes: Sequence[int], source: Literal["one-click", "page"], words: str
) -> str:
    """Suppress whom the token names within these scopes. Raises Unavailable, Unusable.

    Returns a token that undoes this very click, and looks the same if there was nothing to be done.
    """
    ledger, now = context.ledger, context.now()
    click = clicking.click_at(now)
    who = ledger.site_key.who_has(token.address_key)
    detail = {"words": words, "list": token.list_number}
    with write(ledger, now, "web") as w:
        for scope, added in zip(
            scopes, clicking.leave(w, token.address_key, scopes, source, detail, click), strict=True
        ):
            if added.outcome == "outdated":  # nobody clicks before now: our clock was set back behind a later lift
                raise Unavailable("the clock is behind what the ledger has of this person")
            said, repeated = suppressions.scope_word(w.db, scope), added.outcome == "repeated"
            if source == "one-click":
                w.after_commit(partial(events.one_click_recorded, who, said, added.evidence, repeated))
            else:
                tell = events.opt_out_repeated if repeated else events.opt_out_recorded
                w.after_commit(partial(tell, who, scope=said, ref=added.evidence, source=source))
    return tokens.make(ledger.site_key, "regret", token.address_key, 0, click=click)


def undo_link(context: Context, regret: str) -> str:
    """Where the button posts that undoes a click."""
    return f"{context.base}/undo/{regret}"
