"""The writer's own words of a whole message: which parts are read, and whether the subject is his own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from daemon.config import House
from daemon.mail import addresses, fields, markup, phrases, quoting, wording
from daemon.mail.message import Message, Part
from daemon.mail.patterns import pattern
from daemon.mail.quoting import OwnWords

_PREFIX = pattern(
    r"[\s\[(]{0,3}(?:re|aw|antw|antwort|sv|vs|odp|ynt|ref|rif|r|fwd?|fw|wg|tr|rv|enc|i|vb|doorst|pd|ilt|turpinat|res|"
    r"atb|回复|回覆|答复|转发|轉寄|返信|転送|답장|전달|רע|העברה|رد|إعادة توجيه|пересл|отв|ha|"
    r"továbbítás)(?:\s?[\[(]\d{1,3}[\])])?\.?\s{0,2}[:：][\])]?\s{0,3}"
)
_FORWARD = pattern(
    r"[\s\[(]{0,3}(?:fwd?|fw|wg|tr|rv|enc|i|doorst|pd|ilt|vb|转发|轉寄|転送|전달|העברה|пересл)\s{0,2}[:：]"
)
_FIELD_LINE = pattern(r"^\s{0,6}[*_]{0,2}([^\s:：*_][^:：\n]{0,40}?)[*_]{0,2}\s{0,6}[:：]\s{0,6}([^\n]{0,4000})")


def _labels(words: str) -> frozenset[str]:
    return frozenset("".join(phrases.tokens(word)) for word in words.split())


_MAIL_LABELS: Final = _labels(
    "email emailaddress youremail youremailaddress mail mailaddress emailadresse adresseemail"
    " ihreemail ihreemailadresse votreemail adressemail courriel correo correoelectronico sucorreo"
    " direcciondecorreo replyto from absender emailid contactemail"
    " indirizzoemail suaemail enderecodeemail seuemail emailadres uwemail epost epostadress"
    " epostadresse mejl mailadresse sähköposti sähköpostiosoite adresemail twójemail vášemail"
    " emailováadresa почта электроннаяпочта эл.почта вашemail електроннапошта"
    " eposta epostaadresi epostaadresiniz メールアドレス メール eメール 邮箱 电子邮箱 电子邮件 邮件地址 邮箱地址 电邮 電子郵件 信箱 이메일"
    " 이메일주소 메일주소 البريدالإلكتروني البريدالالكتروني بريدك דואראלקטרוני דוא״ל אימייל כתובתמייל"
)
_TEXT_LABELS: Final = _labels(
    "message yourmessage nachricht ihrenachricht mitteilung comment comments text anfrage question"
    " enquiry inquiry description details body mensaje comentario comentarios messaggio bericht"
    " mensagem votremessage kommentar frage anliegen request content"
    " domanda richiesta commento mensagemtexto uwbericht vraag opmerking meddelande besked melding"
    " henvendelse viesti wiadomość treść zpráva dotaz сообщение вопрос текст повідомлення запитання"
    " mesaj mesajınız mesajiniz"
    " メッセージ お問い合わせ内容 内容 本文 ご質問 留言 消息 信息 内容 問題 訊息 메시지 문의내용 내용 الرسالة رسالتك הודעה תוכןההודעה"
)
_TOPIC_LABELS: Final = _labels(
    "topic subject betreff thema sujet objet asunto tema reason category kategorie oggetto onderwerp"
    " assunto motivo ämne emne aihe temat předmět тема konu 件名 主题 主旨 제목 الموضوع נושא"
)


@dataclass(slots=True)
class Own:
    """Own words of a message: subject ("" if it is that of a mailing of ours), body, and what surrounds them."""

    subject: str
    body: OwnWords = field(default_factory=OwnWords)
    reply: bool = False
    forward: bool = False
    to_mailing: bool = False  # does it answer a message of ours?
    unreadable: bool = False
    attachments: bool = False
    form_address: str | None = None  # the e-mail field of our own web form


def read(message: Message, house: House, author: str, writer: str) -> Own:
    """The own words of a message; `author`: display name, `writer`: address of From."""
    subject = phrases_spaces(fields.words(message.fields.get("subject")))[:2000]
    own = Own(subject=subject)
    text, own.unreadable, own.attachments = _readable(message.root)
    own.body = quoting.own_words(text, fields.words(author))
    own.forward = bool(_FORWARD.match(subject)) or any(copy.forwarded for copy in own.body.copies)
    answered = " ".join(message.fields.all("in-reply-to") + message.fields.all("references"))[:8000]
    own.reply = not own.forward and (bool(answered) or bool(_PREFIX.match(subject)))
    ours = any(house.owns(x.rpartition("@")[2].strip("<> ")) for x in answered.split())
    own.to_mailing = (
        (ours and not _quotes_support(own.body, house))
        or _quotes_mailing(own.body, house)
        or (bool(_PREFIX.match(subject)) and _is_title(_bare(subject), house))
    )
    own.subject = _own_subject(subject, own, house)
    if writer.lower() in (a.lower() for a in house.form_addresses):
        _read_form(own)
    return own


def phrases_spaces(text: str) -> str:
    """One line, cleaned like a body."""
    return " ".join(quoting.clean(text).split())


def _readable(root: Part) -> tuple[str, bool, bool]:
    """(readable text, was there something that cannot be read?, were there attachments?)."""
    texts: list[str] = []
    unreadable = attachments = False
    for part in _chosen(root):
        if part.content_type in (
            "application/pgp-encrypted",
            "multipart/encrypted",
            "application/pkcs7-mime",
            "application/x-pkcs7-mime",
        ):
            unreadable = True
        elif part.content_type.startswith("text/") and not part.is_attachment and not part.parts:
            texts.append(_text(part))
        elif not part.content_type.startswith(
            ("multipart/", "application/pgp-signature", "application/pkcs7-signature")
        ):
            attachments = True
        if sum(map(len, texts)) > quoting.TEXT_LIMIT:
            break
    return "\n".join(texts), unreadable, attachments


def _text(part: Part) -> str:
    text = part.text()
    if part.content_type == "text/html" or (
        part.content_type == "text/plain" and text.lstrip()[:14].lower().startswith(("<html", "<!doctype html"))
    ):
        return markup.to_text(text)
    if part.content_type not in ("text/plain", "text/html", "text/enriched", "text/markdown"):
        return ""
    return _unflowed(text) if part.parameters.get("format", "").lower() == "flowed" else text


def _unflowed(text: str) -> str:
    """RFC 3676: a line that ends with a space goes on in the next; "-- " does not."""
    out: list[str] = []
    for line in text.split("\n"):
        if out and out[-1].endswith(" ") and out[-1] != "-- " and out[-1][:1] == ">" and line[:1] == ">":
            out.append(line)
        elif (
            out
            and out[-1].endswith(" ")
            and out[-1].strip() not in ("--", "")
            and line[:1] != ">"
            and out[-1][:1] != ">"
            and line.strip()
            and len(out[-1]) > 40
        ):
            out[-1] += line
        else:
            out.append(line)
    return "\n".join(out)


def _chosen(part: Part) -> list[Part]:
    """The parts to read, in order: of alternatives the plain text if it says something, else the HTML."""
    if part.content_type.startswith("message/") or not part.parts:
        return [part]
    if part.content_type == "multipart/encrypted":
        return [part]
    if part.content_type != "multipart/alternative":
        return [x for child in part.parts for x in _chosen(child)]
    choices = [_chosen(child) for child in part.parts]
    for wanted in ("text/plain", "text/html"):
        for choice in choices:
            if any(x.content_type == wanted and _text(x).strip() for x in choice):
                return choice
    return choices[0] if choices else []


def _quoted_authors(body: OwnWords) -> list[str]:
    return [a.lower() for copy in body.copies for _, _, a in addresses.in_text(copy.author)]


def _quotes_mailing(body: OwnWords, house: House) -> bool:
    """Is what is quoted ours, and no answer of our support staff's?"""
    return any(house.owns(a.rpartition("@")[2]) and not house.is_ours(a) for a in _quoted_authors(body))


def _quotes_support(body: OwnWords, house: House) -> bool:
    return any(house.is_ours(a) for a in _quoted_authors(body)) and not _quotes_mailing(body, house)


def _bare(subject: str) -> str:
    """The subject without its Re:, AW:, Fwd: ..."""
    for _ in range(8):
        found = _PREFIX.match(subject)
        if not found:
            break
        subject = subject[found.end() :]
    return subject.strip()


def _own_subject(subject: str, own: Own, house: House) -> str:
    """The subject if it is own words: not that of one of our mailings behind Re: and the like."""
    bare = _bare(subject)
    if bare == subject.strip():
        return subject
    folded = phrases.tokens(bare)
    copied = [phrases.tokens(_bare(copy.subject)) for copy in own.body.copies if copy.subject]
    for title in copied:  # "Re: The Quill Letter | May -- UNSUBSCRIBE"
        added = [word for word in folded[len(title) :] if word.isalnum()]
        if title and added and folded[: len(title)] == title:
            return " ".join(added)
    if folded in copied or _is_title(bare, house):
        return ""
    quoted = [phrases.tokens(line.lstrip(" >|")) for line in own.body.quoted.split("\n")[:12]]
    if folded and any(line[: len(folded)] == folded for line in quoted):
        return ""
    if own.to_mailing and wording.understand(bare, "", [], is_answer=True).kind == "ordinary":
        return ""  # of a mailing that we cannot see: who writes a subject of his own there asks for something
    return bare


def _is_title(bare: str, house: House) -> bool:
    """Does a subject bear the name of a list, or our own name in front?"""
    words = phrases.tokens(bare)
    names = [
        phrases.tokens(name)
        for x in house.lists
        for name in (x.title, *x.names)
        if name and " " in name.strip().replace("-", " ")
    ]
    if not any(name and _holds(words, name) for name in names):
        return False
    return not _starts_with_request(words)


def _starts_with_request(words: list[str]) -> bool:
    return bool(words) and words[0] in (
        "unsubscribe",
        "remove",
        "stop",
        "please",
        "abmelden",
        "abbestellen",
        "cancel",
        "no",
        "bitte",
        "desabonner",
        "desinscription",
        "baja",
        "keine",
    )


def _holds(words: list[str], name: list[str]) -> bool:
    return any(words[n : n + len(name)] == name for n in range(len(words) - len(name) + 1))


def _fields_joined(lines: list[str]) -> list[str]:
    """A table shows label and value in cells, with a tab between or on lines of their own: as `E-mail: ann@example.com`."""
    known = _MAIL_LABELS | _TEXT_LABELS | _TOPIC_LABELS
    out: list[str] = []
    alone = ""
    for line in lines:
        label, tab, value = line.strip().partition("\t")
        if tab and "".join(phrases.tokens(label)) in known:
            line = f"{label.strip(' :')}: {value.strip()}"
        if not line.strip():
            continue
        if alone:
            out.append(f"{alone}: {line.strip()}")
            alone = ""
        elif "".join(phrases.tokens(line)) in known and ":" not in line and "：" not in line:
            alone = line.strip()
        else:
            out.append(line)
    return [*out, alone] if alone else out


def _read_form(own: Own) -> None:
    """Our own web form: `Label: value` lines; own words are the message field and what follows it."""
    found: dict[str, str] = {}
    kept: list[str] = []
    in_text = False
    topic = ""
    for line in _fields_joined(own.body.text.split("\n")):
        field_line = _FIELD_LINE.match(line)
        label = "".join(phrases.tokens(field_line[1])) if field_line else ""
        if label in _TEXT_LABELS and field_line and not in_text:
            in_text = True
            kept.append(field_line[2])
        elif in_text:
            kept.append(line)
        elif field_line and label in _MAIL_LABELS:
            found.setdefault(label, field_line[2])
        elif field_line and label in _TOPIC_LABELS:
            topic = field_line[2]
    values = [a for value in found.values() for _, _, a in addresses.in_text(value)]
    own.form_address = values[0] if len({v.lower() for v in values}) == 1 else ""
    text = "\n".join(kept).strip()
    own.body = OwnWords(text=text)
    own.subject = "" if text else topic
