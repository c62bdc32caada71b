"""The open corpus, single wordings, and the rules one by one."""

from __future__ import annotations

import csv
import time
from functools import cache
from pathlib import Path

import pytest

from daemon.config import House
from daemon.mail import triage
from daemon.mail.reading import Bounce, OptOut, Reading, Resubscribe, Review, addresses, label
from daemon.mail.rules import RULES

HERE = Path(__file__).parent
CORPUS = HERE.parent / "corpus"
PLAIN = "Content-Type: text/plain; charset=utf-8\n\n"


def mail(body: str, subject: str = "Hello", author: str = "Ann Writer <ann@writer.example>", extra: str = "") -> bytes:
    head = f"From: {author}\nTo: support@quillpdf.example\nSubject: {subject}\nMIME-Version: 1.0\n{extra}"
    return (head + (PLAIN if "Content-Type" not in extra else "\n") + body + "\n").encode()


def scope(reading: Reading) -> str:
    match reading:
        case OptOut() | Resubscribe():
            return ";".join(reading.scope)
        case Bounce():
            return "hard" if reading.hard else "soft"
        case _:
            return ""


def truth() -> list[dict[str, str]]:
    with (CORPUS / "truth.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def read_once(file: Path, house: House) -> Reading:
    """What a file of the open corpus is read as: several tests look at it."""
    return triage.read(file.read_bytes(), house)


def test_open_corpus_has_no_false_opt_out_and_loses_little(house: House) -> None:
    rows, right, found, wrong = truth(), 0, 0, []
    for row in rows:
        reading = read_once(CORPUS / "mail" / row["file"], house)
        said = {a.lower() for a in addresses(reading)}
        told = set(filter(None, row["addresses"].split(";")))
        right += label(reading) == row["label"]
        if label(reading) == "opt-out":
            if row["label"] != "opt-out" or said - told:
                wrong.append((row["file"], reading))
            found += row["label"] == "opt-out" and said == told and scope(reading) == row["scope"]
        if row["label"] in ("bounce", "complaint"):
            assert (label(reading), said, scope(reading)) == (row["label"], told, row["scope"]), row["file"]
    assert not wrong
    assert found >= 0.95 * sum(row["label"] == "opt-out" for row in rows)
    assert right >= 0.95 * len(rows)


def test_wordings_of_our_own(house: House) -> None:
    lines = (HERE / "wording_cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    cases = [line.replace("\\n", "\n").partition("|")[::2] for line in lines]
    false = [text for want, text in cases if want == "no" and isinstance(triage.read(mail(text), house), OptOut)]
    lost = [
        text for want, text in cases if want == "opt-out" and not isinstance(triage.read(mail(text), house), OptOut)
    ]
    assert len(cases) >= 500
    assert not false
    assert len(lost) <= 0.05 * sum(want == "opt-out" for want, _ in cases), lost


FRAMES = {
    "en": (
        'Our customers write: "{}"', 'A reader wrote to us: "{}"', 'In chapter two the hero shouts: "{}"', 'What does "{}" mean?',
        'The popup says "{}" whenever I print.', 'Can I use "{}" in our footer?', 'If the price goes up: "{}"', "{} Just kidding!",
        "{} But only if I keep my licence.", 'Someone keeps sending us "{}"', 'Our newsletter footer reads: "{}"',
    ),
    "de": (
        'Unsere Kunden schreiben: "{}"', 'Ein Leser schrieb uns: "{}"', 'Was bedeutet "{}"?', 'Im Fenster steht "{}"',
        'Falls der Preis steigt: "{}"', "{} War nur ein Test.",
    ),
    "fr": ('Nos clients écrivent : "{}"', 'Que veut dire "{}" ?', 'La fenêtre affiche "{}"', 'Si le prix augmente, "{}"'),
    "es": ('Nuestros clientes escriben: "{}"', '¿Qué significa "{}"?', 'La ventana dice "{}"', 'Si sube el precio, "{}"'),
}  # fmt: skip
FRAMED = {
    "en": (
        "Please remove me from your mailing list.", "Stop sending me emails!", "I no longer wish to receive your newsletter.",
        "Unsubscribe me.", "Take me off this list at once.", "I withdraw my consent to marketing.", "Don't write to me again.",
        "I have unsubscribed three times and still get your mails.",
    ),
    "de": (
        "Bitte streichen Sie mich aus Ihrem Verteiler.", "Ich möchte keine Werbung mehr erhalten.", "Melden Sie mich vom Newsletter ab!",
        "Bitte keine Mails mehr!", "Ich widerspreche der Nutzung meiner Daten zu Werbezwecken.",
    ),
    "fr": ("Merci de me désinscrire de votre newsletter.", "Je ne souhaite plus recevoir vos mails.", "Arrêtez de m'envoyer des mails !"),
    "es": ("Por favor, denme de baja de su lista.", "No quiero recibir más correos.", "Dejen de enviarme publicidad."),
}  # fmt: skip


@pytest.mark.parametrize("language", FRAMES)
def test_a_request_somebody_only_speaks_of_is_none(house: House, language: str) -> None:
    for text in FRAMED[language]:
        assert isinstance(triage.read(mail(text), house), OptOut), text
        for frame in FRAMES[language]:
            assert not isinstance(triage.read(mail(frame.format(text)), house), OptOut), frame.format(text)


NOTS = {
    "ar": "لا", "cs": "ne", "da": "ikke", "fi": "älkää", "he": "אל", "it": "non", "ja": "しないで", "ko": "않습니다", "nl": "niet",
    "no": "ikke", "pl": "nie", "pt": "não", "ru": "не", "sv": "inte", "tr": "değil", "uk": "не", "zh": "请勿",
}  # fmt: skip


def closed_cases() -> list[list[str]]:
    lines = (HERE / "closed_cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("|") for line in lines]


def test_requests_in_languages_of_which_we_know_few_words(house: House) -> None:
    cases = closed_cases()
    false = [text for want, text in cases if want == "no" and isinstance(triage.read(mail(text), house), OptOut)]
    asked = [text for want, text in cases if want == "opt-out"]
    lost = [text for text in asked if not isinstance(triage.read(mail(text), house), OptOut)]
    assert not false
    assert len(lost) <= 0.05 * len(asked), lost


@pytest.mark.usefixtures("untraced")  # the same requests as above, thousands of times
def test_a_not_put_anywhere_into_such_a_request_leaves_it_to_a_person(house: House) -> None:
    false = []
    for text in (text for want, text in closed_cases() if want == "opt-out"):
        reading = triage.read(mail(text), house)
        assert isinstance(reading, OptOut), text
        space = "" if reading.language in ("ja", "zh") else " "
        words = text.split() if space else list(text)
        for n in range(len(words) + 1):
            changed = space.join([*words[:n], NOTS[reading.language], *words[n:]])
            if isinstance(triage.read(mail(changed), house), OptOut):
                false.append(changed)
    assert not false


@pytest.mark.parametrize(
    ("name", "floor"), [("a", 0.9), ("b", 0.9), ("c", 0.85), ("d", 0.85), ("e", 0.85), ("f", 0.85), ("g", 0.85), ("h", 0.75), ("i", 0.8),
     ("j", 0.8), ("k", 0.7), ("l", 0.7), ("m", 0.7), ("n", 0.7), ("o", 0.75), ("p", 0.65), ("q", 0.75)],
)  # fmt: skip
def test_held_out_sets_have_no_false_opt_out_and_lose_none(house: House, name: str, floor: float) -> None:
    """Written by somebody who had not seen the code; so that first contact with each could be measured."""
    folder = CORPUS / "red" / name
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    asked = found = 0
    for row in rows:
        reading = triage.read((folder / row["file"]).read_bytes(), house)
        told = set(filter(None, row["addresses"].lower().split(";")))
        said = {a.lower() for a in addresses(reading)}
        if isinstance(reading, OptOut):
            assert row["label"] == "opt-out", row["file"]
            assert said <= told, row["file"]
        if row["label"] == "opt-out":
            asked += 1
            found += isinstance(reading, OptOut) and said == told and scope(reading) == row["scope"]
            assert isinstance(reading, OptOut | Review), row["file"]
    assert found >= floor * asked


def test_every_reported_rule_is_explained(house: House) -> None:
    for row in truth():
        reading = read_once(CORPUS / "mail" / row["file"], house)
        assert reading.rules
        assert set(reading.rules) <= set(RULES)


@pytest.mark.parametrize(
    ("author", "rule"),
    [
        ("", "4-no-sender"),
        ("Ann <a@x.example>, Bert <b@y.example>", "4-no-sender"),
        ("Ann", "4-no-sender"),
        ("support@quillpdf.example", "4-our-own"),
    ],
)
def test_untrustworthy_senders_go_to_review(house: House, author: str, rule: str) -> None:
    reading = triage.read(mail("unsubscribe me from your list", author=author), house)
    assert isinstance(reading, Review)
    assert rule in reading.rules


FORGED = (
    "Authentication-Results: mx1.quillpdf.example; "
    'spf=pass smtp.mailfrom="a; dmarc=pass header.from=writer.example b"@evil.example;\n'
    " dmarc=fail header.from=writer.example\n"
)
AUTH = "Authentication-Results: {by}; dmarc={result} header.from=writer.example\n"


@pytest.mark.parametrize(
    ("fields", "kind", "proof"),
    [
        (AUTH.format(by="mx1.quillpdf.example", result="pass"), "opt-out", "dmarc"),
        (AUTH.format(by="mx1.quillpdf.example", result="fail"), "review", ""),
        (AUTH.format(by="mx.elsewhere.example", result="fail"), "opt-out", "none"),
        (FORGED, "review", ""),
        (
            'Authentication-Results: mx1.quillpdf.example; dkim=fail reason="x; dmarc=pass"; dmarc=fail\n',
            "review",
            "",
        ),
        (
            "Received: from a by mx.elsewhere.example; today\n" + AUTH.format(by="mx1.quillpdf.example", result="pass"),
            "opt-out",
            "none",
        ),
        (
            "Received: from a by mx1.quillpdf.example; today\n" + AUTH.format(by="mx1.quillpdf.example", result="pass"),
            "opt-out",
            "dmarc",
        ),
    ],
)
def test_only_our_own_servers_results_count(house: House, fields: str, kind: str, proof: str) -> None:
    reading = triage.read(fields.encode() + mail("unsubscribe"), house)
    assert label(reading) == kind
    assert getattr(reading, "proof", "") == proof


def test_without_an_authserv_id_nobody_is_proven(house: House) -> None:
    reading = triage.read(mail("unsubscribe"), house.model_copy(update={"authserv_id": ""}))
    assert isinstance(reading, OptOut)
    assert reading.proof == "unchecked"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("Please remove my old address ann.old@else.example from your mailing list.", {"ann.old@else.example"}),
        ("Please remove my other address ann (at) else (dot) example from your mailing list.", {"ann@else.example"}),
        (
            "Please unsubscribe both my old address old@else.example and this one from your list.",
            {"old@else.example", "ann@writer.example"},
        ),
        ("Please unsubscribe our accountant bob@writer.example from your list.", {"bob@writer.example"}),
        ("Please unsubscribe me. It is support@quillpdf.example that writes to me.", {"ann@writer.example"}),
    ],
)
def test_which_address(house: House, body: str, named: set[str]) -> None:
    reading = triage.read(mail(body), house)
    assert isinstance(reading, OptOut), reading
    assert set(reading.addresses) == named


OUTLOOK = """<html><body><p>{}</p><hr><div id="divRplyFwdMsg"><b>From:</b> Quill Offers &lt;offers@news.quillpdf.example&gt;<br>
<b>Sent:</b> Tuesday<br><b>To:</b> ann@writer.example<br><b>Subject:</b> 30 % off</div>
<div><p>Do not want any more offers? Please unsubscribe me.</p></div></body></html>"""


@pytest.mark.parametrize(("words", "expected"), [("spam", "review"), ("Unsubscribe me.", "opt-out"), ("", "ordinary")])
def test_below_outlooks_mark_nothing_is_own_words(house: House, words: str, expected: str) -> None:
    raw = mail(OUTLOOK.format(words), subject="Re: Quill Offers: 30 % off", extra="Content-Type: text/html\n")
    assert label(triage.read(raw, house)) == expected


def test_everyone_at_a_domain_is_no_address(house: House) -> None:
    reading = triage.read(mail("Please remove all addresses at writer.example from your mailing lists."), house)
    assert isinstance(reading, Review)
    assert "addresses@writer.example" not in reading.addresses


def test_somebody_else_elsewhere_is_for_a_person(house: House) -> None:
    assert isinstance(
        triage.read(mail("Please unsubscribe my neighbour jo@else.example from your list."), house), Review
    )


@pytest.mark.parametrize(
    ("body", "expected", "keep"),
    [
        ("Please unsubscribe me from the Quill Academy mails.", ("list:webinars",), ()),
        ("Please stop the Quill Offers, but keep the release notes coming.", ("list:offers",), ("product-updates",)),
        ("Please unsubscribe me from everything.", ("all",), ()),
        ("Please unsubscribe me from the newsletter.", ("all",), ()),
    ],
)
def test_scope(house: House, body: str, expected: tuple[str, ...], keep: tuple[str, ...]) -> None:
    reading = triage.read(mail(body), house)
    assert isinstance(reading, OptOut), reading
    assert (reading.scope, reading.keep) == (expected, keep)


def test_a_request_in_passing_stays_with_support(house: House) -> None:
    reading = triage.read(
        mail(
            "My licence key was lost in the crash, could you send the key again?\n\nAnd please unsubscribe me from "
            "your newsletter."
        ),
        house,
    )
    assert isinstance(reading, OptOut)
    assert reading.stays


def test_unsubscribe_addresses(house: House) -> None:
    raw = mail("").replace(b"support@", b"support+unsubscribe-offers@")
    reading = triage.read(raw, house)
    assert isinstance(reading, OptOut)
    assert reading.scope == ("list:offers",)


NESTED = "".join(f"Content-Type: multipart/mixed; boundary=n{n}x\n\n--n{n}x\n" for n in range(400))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (mail("Please end all mailings to me.\n" + "y" * 10_000_000), "opt-out"),
        (mail("Why does Merge need so much memory?\n" + "> unsubscribe me please\n" * 400_000), "ordinary"),
        (mail("unsubscribe", extra="X-Long: " + "a" * 1_000_000 + "\n"), "review"),
        (mail("unsubscribe", extra="X: 1\n" * 60_000), "review"),
        (mail("").replace(b"Content-Type: text/plain; charset=utf-8\n\n", NESTED.encode()), "review"),
        (mail("", extra="Content-Type: multipart/mixed; boundary=p\n") + b"--p\n\nz\n" * 20_000, "review"),
        (mail("hi", extra="Cc: " + ",\n ".join(f"u{n}@example.org" for n in range(30_000)) + "\n"), "review"),
        (mail("hello", subject="=?utf-8?q?" + "=41" * 20_000 + "?="), "ordinary"),
        (mail("unsubscribescribescribe " * 100_000), "ordinary"),
        (
            mail(
                "<div>" * 100_000 + "Please end all mailings to me." + "</div>" * 100_000,
                extra="Content-Type: text/html\n",
            ),
            "opt-out",
        ),
        (b"", "ordinary"),
        (b"\n\n\n", "ordinary"),
        (mail("Where is \0 the key?").replace(b"utf-8", b"x-nonsense") + b"\r\r\r\n\x80\xff\xfe", "ordinary"),
    ],
)
def test_hostile_messages_are_read_in_time(house: House, raw: bytes, expected: str) -> None:
    start = time.thread_time()
    reading = triage.read(raw, house)
    assert time.thread_time() - start < 8
    assert label(reading) == expected
