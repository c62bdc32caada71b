"""What is said, and by which key it is signed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.webhooks import told
from daemon.webhooks.told import Hook, WrongSecret, keys_in, kind_of
from storage import hooks, suppressions
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import books

SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = Hook("crm", "https://crm.example/hook", keys_in(f"whsec_{SECRET}"), frozenset({"opt-out"}))


def test_the_example_of_the_scheme_comes_out_as_there() -> None:
    """Of the specification's own text: whoever signs as it does is understood by every library of the scheme."""
    body = b'{"test": 2432232314}'
    made = told.signed(HOOK, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, datetime.fromtimestamp(1614265330, UTC))
    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_secret_is_taken_as_it_is_or_out_of_base64() -> None:
    assert keys_in("x" * 24) == (b"x" * 24,)
    assert keys_in(f"whsec_{SECRET}") == (base64.b64decode(SECRET),)
    assert keys_in("the new one, which is long enough\nthe old one, which is long enough\n\n") == (
        b"the new one, which is long enough",
        b"the old one, which is long enough",
    )


@pytest.mark.parametrize(
    "secret", ["", "\n", "x" * 23, "whsec_" + "x" * 30 + "!", "whsec_" + SECRET[:28], "x" * 30 + "\ny"]
)
def test_a_secret_that_anybody_could_guess_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(WrongSecret) as why:
        keys_in(secret)
    assert not secret.strip() or secret[:5] not in str(why.value).replace("whsec_", "")


def test_no_secret_is_shown_of_a_hook() -> None:
    assert "keys" not in repr(HOOK)


@pytest.mark.parametrize(
    ("event", "reason", "kind"),
    [
        ("suppressed", Reason.OPT_OUT, "opt-out"),
        ("suppressed", Reason.COMPLAINT, "complaint"),
        ("suppressed", Reason.HARD_BOUNCE, "bounce"),
        ("suppressed", Reason.SOFT_BOUNCE, "bounce"),
        ("suppressed", Reason.OPERATOR, "operator"),
        ("restored", Reason.OPT_OUT, "opt-out"),
        *(("lifted", reason, "lift") for reason in Reason if reason != Reason.WANTED),
        ("suppressed", Reason.WANTED, "lift"),
        ("lifted", Reason.WANTED, "opt-out"),
        ("restored", None, None),
        ("bounce", Reason.SOFT_BOUNCE, None),
        ("imported", None, None),
        ("erased", None, None),
    ],
)
def test_which_kind_of_change_an_audit_row_is(event: str, reason: int | None, kind: str | None) -> None:
    assert kind_of(event, reason) == kind


def test_after_a_restore_a_number_given_again_is_another_id() -> None:
    assert (told.id_of("crm", 17, 1), told.id_of("crm", 17, 2)) == ("crm-17", "crm-17.2")


def test_of_an_address_that_nobody_knows_the_key_is_told(tmp_path: Path) -> None:
    it = books(tmp_path / "ledger")
    with write(it.ledger, datetime.now(UTC), "test") as w:
        suppressions.add(w, bytes(range(16)), ALL, Reason.OPT_OUT, "one-click", {})
    with it.ledger.reading() as db:
        ((change,), _) = hooks.window(db, 0, 1)
        message_id, body = told.compose(db, it.ledger, HOOK, change)
    said = json.loads(body)
    assert (message_id, said["id"]) == ("crm-1", "crm-1")
    assert (said["address"], said["key"], said["source"]) == (None, bytes(range(16)).hex(), "one-click")
    it.close()
