"""Every rule that may decide a reading: its slug, as `rules` of a reading reports it, and what it says.

The numbers are those of docs/triage.md. "First rule that fits wins" within 0; 1 to 5 then refine what was asked.
"""

from __future__ import annotations

from typing import Final

RULES: Final[dict[str, str]] = {
    "h-unsound": "the message cannot be taken apart within sane limits (parts, depth, header size)",
    "0.1-backscatter": "a delivery report about a message that is shown and is not ours",
    "0.1-delivered": "a delivery report that says only delivered, relayed or expanded",
    "0.1-delivery-report": "a delivery report (RFC 3464): the failed or delayed recipients as we mailed them",
    "0.1-text-bounce": "a bounce without a machine-readable part: recipients from X-Failed-Recipients or the text",
    "0.1-no-recipient": "a delivery report that names no recipient",
    "0.2-feedback-report": "a feedback report (RFC 5965) of a kind that is a complaint",
    "0.2-not-ours": "a feedback report about a message that is not ours",
    "0.2-no-complaint": "not-spam, auth-failure, DMARC and TLS reports",
    "0.3-token": "sent by a link of ours: the token in the address or the subject is the request",
    "0.3-unsubscribe-address": "sent to our +unsubscribe address, or marked X-Apple-Unsubscribe",
    "0.3-automatic": "an automatic answer by its header fields",
    "0.3-notification": "a read receipt (MDN)",
    "0.3-out-of-office": "an out-of-office answer by its wording alone",
    "0.3-acknowledgement": "a ticket acknowledgement or challenge",
    "0.3-asks-removal": "an automatic text that itself asks for removal of the address",
    "0.3-own-machine": "mail of our own machines",
    "0.4-bulk": "bulk mail, digests, newsletters and list posts of others",
    "0.4-offers-opt-out": "somebody's advertising: it offers an opt-out, it does not ask for one",
    "1-nothing-said": "no own words: all is quoted, or the message is empty",
    "1-unreadable": "an answer to a mailing with nothing but an attachment, or text that cannot be read",
    "2-opt-out": "asks that our mailings stop, now and unconditionally",
    "2-one-word": "one word that is a request by itself",
    "2-answer-to-quoted": "a short yes to a quoted unsubscribe line",
    "2-failed-attempt": "reports that his own attempts to leave failed",
    "2-weighed": "the words, weighed together, ask that our mailings stop (model.py)",
    "2-weighed-doubt": "the words, weighed together, leave it open what is asked",
    "2-weighed-ordinary": "a suspicion that the other words outweigh",
    "2-weighed-resubscribe": "the words, weighed together, ask to be put on or back on",
    "2-resubscribe": "wants to join, to be put back, or takes an opt-out back",
    "2-ordinary": "asks nothing of the kind",
    "2-other-matter": "the words are about a product, a contract, another channel or the customer's own mailings",
    "2-wants-to-stay": "says that he does not want to leave",
    "2-review-a-unclear": "unclear what is to be cancelled, removed or stopped",
    "2-review-b-privacy": "account deletion, erasure, access and other privacy rights without an end of marketing mail",
    "2-review-c-displeasure": "displeasure, sarcasm or 'spam' without a request",
    "2-review-d-conditional": "conditional, hypothetical or future",
    "2-review-d-pause": "a pause for a time",
    "2-review-d-fewer": "fewer mails, not none",
    "2-review-e-address-change": "a change of address",
    "2-review-f-another": "for somebody else, by an agent, or by a colleague of ours",
    "2-review-f-domain": "for a whole domain",
    "2-review-f-many": "for a pasted list of people",
    "2-review-g-renewal": "renewal reminders: half contract, half marketing",
    "2-review-g-not-ours": "a request about a list that is not ours, or that we do not know",
    "2-review-h-machine-text": "text addressed to the machine",
    "2-review-contradiction": "asks for two things that do not go together",
    "3.1-writer": "no address in the request: the From address",
    "3.2-named-own": "an address that the writer names as his own",
    "3.3-same-domain": "somebody else's address in the writer's own domain",
    "3.4-another-domain": "somebody else's address in another domain or at a freemail provider",
    "3.5-alias": "the quoted copy of our mailing shows another recipient: it reached the writer through an alias",
    "3.5-forwarded": "a forwarded copy addressed to another recipient in the writer's own domain",
    "3.6-web-form": "our own web form: the address is its e-mail field",
    "3.7-token": "the token names the address, whatever From says",
    "3.7-returned-token": "our token in the returned header names whom a redacted report is about",
    "4-dmarc-fail": "our own mail server says dmarc=fail for the author's domain",
    "4-no-sender": "no From, several, or one without an address",
    "4-our-own": "the address is one of our own",
    "5-all": "nothing limits the request",
    "5-named": "lists named so as to limit the request",
    "5-all-but": "everything but the lists named",
    "5-address": "the list named by our +unsubscribe address",
    "5-token": "the list that the token names, or everything",
}

# What comes of a reading can add one of these.
AFTERWARDS: Final[dict[str, str]] = {
    "7.5-unproven": "the reading is clear, but not who wrote it, or the address is not the writer's own",
    "attempts-did-not-end": "reading it failed twice; it was not tried a third time",
    "moved-back-by-a-person": "it was honoured and filed, and somebody moved it back",
}


def explained(rule: str) -> str:
    """What a rule says; "" for one that we do not know (any more)."""
    return RULES.get(rule) or AFTERWARDS.get(rule, "")
