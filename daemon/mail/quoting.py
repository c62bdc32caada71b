"""The writer's own words: what is new in a message, without quotations, signatures and disclaimers. Linear time.

Goes over the lines once, with a few lines of look-ahead. Answers between or below quoted lines are own words; each
knows the quoted lines it follows, so that "yes, do that" can be understood.
"""

# ruff: noqa: E501  (field names and formulas in many languages are data)

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Final, Literal

from daemon.mail.header_names import LABEL_OF
from daemon.mail.patterns import pattern

TEXT_LIMIT: Final = 400_000  # characters of readable text that are looked at
WORDS_LIMIT: Final = 65_536  # characters of own words
LINE_LIMIT: Final = 4_000  # characters of one line that patterns see

_INVISIBLE: Final = dict.fromkeys(
    (173, 847, 1564, 6158, *range(8203, 8208), *range(8234, 8239), *range(8288, 8293), *range(8294, 8304), 65279)
) | {0x00A0: " ", 0x202F: " ", 0x3000: " ", 0x2028: "\n", 0x2029: "\n", 0x85: "\n", 0x0B: "\n", 0x0C: "\n"}

_QUOTED = pattern(r"^\s{0,6}(?:[a-z]{1,4})?(?:>|\|\s|»\s)")
_UNDERSCORES = pattern(r"^\s{0,4}(?:_{10,200}|\*{10,200}|-{20,200}|={20,200})\s{0,4}$")
_SEPARATOR = pattern(
    r"""^[\s>]{0,5}(?:[-_=*]{2,30}\s{0,3}(?:
      original(?:\s(?:message|appointment|email|nachricht)|nachricht|meddelande|e-mail|mail|)
    | urspr(?:ü|ue)ngliche\s(?:nachricht|e-mail) | weitergeleitete\s(?:nachricht|e-mail)
    | message\s(?:d['’]origine|original|transf[ée]r[ée]|reenviado|transmis) | mensaje\s(?:original|reenviado) | mensagem\s(?:original|encaminhada|reenviada)
    | messaggio\s(?:originale|inoltrato) | oorspronkelijk\sbericht | doorgestuurd\sbericht | forwarded\s(?:message|by|mail|email)
    | (?:videresendt|vidarebefordrat|ursprungligt)\s(?:meddelelse|meddelande|besked) | oprindelig\smeddelelse | opprinnelig\smelding | videresendt\smelding
    | wiadomo(?:ść|sc)\s(?:oryginalna|przekazana) | oryginalna\swiadomo(?:ść|sc) | przekazana\swiadomo(?:ść|sc) | p(?:ů|u)vodn(?:í|i)\szpr(?:á|a)va
    | (?:p(?:ř|r)eposlan(?:á|a)|preposlan(?:á|a))\s(?:zpr(?:á|a)va|spr(?:á|a)va) | исходное\sсообщение | пересылаемое\s(?:сообщение|письмо) | переслан\w{2,6}\sсообщение
    | перенаправлене\sповідомлення | orijinal\smesaj | (?:i|ı)letilen\s(?:ileti|mesaj) | eredeti\s(?:ü|u)zenet | tov(?:á|a)bb(?:í|i)tott\s(?:ü|u)zenet
    | alkuper(?:ä|a)inen\sviesti | v(?:ä|a)litetty\sviesti | mesaj\s(?:original|redirec(?:ț|t|ţ)ionat) | prosljeđena\sporuka | edastatud\s(?:kiri|s(?:õ|o)num)
    | 元のメッセージ | 転送(?:された)?メッセージ | original\s메시지 | 原始邮件 | 原始郵件 | 转发邮件 | الرسالة\sالأصلية | הודעה\s(?:מקורית|שהועברה)
    )[\s:]{0,4}[^\n]{0,60}$
    | (?:begin\sforwarded\smessage|anfang\sder\sweitergeleiteten\s(?:nachricht|e-mail)|d[ée]but\sdu\smessage\s(?:r[ée]exp[ée]di[ée]|transf[ée]r[ée])
    | inicio\sdel\smensaje\sreenviado|inizio\smessaggio\sinoltrato|begin\sdoorgestuurd\sbericht|vidarebefordrat\smejl|start\spå\svideresendt\sbesked
    | za(?:č|c)(?:á|a)tek\sp(?:ř|r)epos(?:í|i)lan(?:é|e)\szpr(?:á|a)vy|pocz(?:ą|a)tek\sprzekazywanej\swiadomo(?:ś|s)ci|in(?:í|i)cio\sda\smensagem\s(?:encaminhada|reenviada)
    | начало\sпереадресованного\s(?:письма|сообщения)|початок\sлиста,\sщо\sпересилається|转发的邮件|以下は転送されたメールです|tov(?:á|a)bb(?:í|i)tott\slev(?:é|e)l\skezdete
    | reply\sabove\sthis\sline)[^\n]{0,40}$ )""",
    verbose=True,
)
FORWARDED = pattern(
    r"forward|weitergeleitet|transf[ée]r|reenviad|inoltrat|doorgestuurd|vidarebefordra|videresend|przekaz|přeposl|"
    r"пересл|переадрес|転送|转发|välitetty|iletilen|encaminhad|réexp"
)

_LABEL = pattern(
    r"^[\s>*_]{0,8}([^\s:*：<>@][^:*：<>@\n]{0,22}?)[\s*]{0,4}[:：]\*{0,2}(?:\s|$|(?=[^/\s]))([^\n]{0,2000})$"
)

# "On <date>, <name> <address> wrote:" and its like; the verb or the shape must be there, at the end of the line.
_WROTE = pattern(
    r"(?:wrote|writes|schrieb(?:\s[^\n]{0,120})?|geschrieben|a\sécrit|a\secrit|écrit|escribió|escribio|ha\sscritto|"
    r"scrive|scrisse|schreef(?:\s[^\n]{0,120})?|escreveu|skrev(?:\s[^\n]{0,120})?|napisał(?:\(a\)|a)?|napisal"
    r"|pisze|napsal(?:\(a\)|a)?|kirjoitti|пишет|написал(?:\(а\)|а)?|писал(?:\(а\)|а)?|написав(?:\(ла\)|ла)?|пише|"
    r"yazdı|yazdi|şunu\syazdı|írta|a\sscris|napisao(?:/la)?|je\snapisao|kirjutas|wrote\sthe\sfollowing|viết"
    r"|のメール|が書きました|は書きました|さんは書きました|写道|寫道|님이\s작성|작성:|كتب|כתב(?:\(ה\))?|‫כתב)\s{0,3}[:：]?\s{0,3}$"
)
_ATTRIBUTION_START = pattern(
    r"^[\s>]{0,4}(?:on\s|am\s|le\s|el\s|il\s(?:giorno\s)?|op\s|em\s|den\s|d\.\s|på\s|w\sdniu|dnia|dne\s|в\s|"
    r"\d{1,4}[./年-]|[a-zäöüéàèçřžščáíýůа-яіїє.]{2,12},?\s\d|"
    r"[a-zäöüéàèçřžščáíýůа-яіїє]{2,10}\.?,\s|בתאריך|في\s|ב-|"
    r"\"[^\"]{1,80}\"|[^\n:]{1,60}\s(?:wrote|schrieb))"
)
# In any language: a line with a time of day and "<address>" that ends in a colon.
_TIME = pattern(r"\d[:.]\d\d")
_ADDRESS_AND_COLON = pattern(r"<[^\s@<>]{1,64}@[^\s@<>]{1,100}>[^\n<]{0,60}[:：]\W?$")
_HAS_DATE_OR_ADDRESS = pattern(r"\d{1,4}[./:年-]\d{1,2}|\d{4}|[^\s@]{1,64}@[^\s@]{1,100}|\bvia\b")
_SIGNATURE_MARK = pattern(r"(?:--|—|–|-- |_{2,9}|- -|\*{3,9}|={3,19}|~{2,19})\s?$")
_PS = pattern(r"\s{0,4}(?:p\.?\s?p?\.?s\b|n\.?b\b|post\s?scriptum|пс\b|p\.\s?d\b|з\.\s?і\.|追伸)")
_MOBILE = pattern(
    r"^\s{0,4}(?:sent (?:from|via|with|by) (?:my|mail|outlook|yahoo|gmail|proton|the|a)|get outlook for|von "
    r"(?:meinem?|unterwegs)[^\n]{0,60}gesendet|gesendet (?:von|mit|aus)"
    r"|envoy[ée] (?:de|depuis|à partir)|enviado (?:desde|do|via|a partir)|inviato da|verstuurd vanaf|verzonden "
    r"(?:met|vanaf)|skickat från|sendt fra|lähetetty|wysłane z|odesláno z"
    r"|отправлено (?:с|из)|надіслано|iphone'?umdan|iphoneから送信|发自我的|從我的|나의 iphone|this (?:e-?mail|message) (?:was|has "
    r"been) (?:sent|scanned|checked)|virus-free|virenfrei|diese e-?mail wurde von)"
)
_CLOSING = pattern(
    r"^\s{0,4}(?:(?:with )?(?:(?:kind|best|warm|many|warmest|kindest) )?regards|(?:with )?best wishes[^\n]{0,60}|best|"
    r"cheers|yours(?: (?:sincerely|faithfully|truly))?|sincerely(?: yours)?|respectfully|thanks(?: (?:and regards|in "
    r"advance|a lot|again|so much))?|many thanks|thank you(?: (?:very much|in advance))?"
    r"|thx|ta|tnx|rgds|br|kr|mit (?:freundlichen|besten|freundlichem|lieben|herzlichen) gr(?:ü|ue)(?:ß|"
    r"ss)(?:en)?[^\n]{0,40}|(?:viele|liebe|beste|freundliche|sch(?:ö|oe)ne|herzliche) gr(?:ü|ue)(?:ß|ss)e[^\n]{0,30}|"
    r"gr(?:u|ü)(?:ß|ss)e?|hochachtungsvoll|mfg|vg|lg|danke(?: (?:sehr|schön|im voraus|und gruß))?|vielen dank(?: im "
    r"voraus)?"
    r"|(?:bien )?cordialement|bien à vous|salutations(?: distingu[ée]es)?|sinc[èe]res salutations|cdlt|merci(?: "
    r"(?:d['’]avance|beaucoup|bien))?|(?:un )?saludos?(?: cordiales)?|(?:un )?cordial saludo|atentamente|atte|"
    r"(?:muchas )?gracias(?: de antemano)?"
    r"|cordiali saluti|distinti saluti|saluti|grazie(?: mille)?|met vriendelijke groet(?:en)?|mvg|groet(?:en|jes)?|"
    r"(?:alvast )?bedankt|atenciosamente|cumprimentos|com os melhores cumprimentos|obrigad[oa]|med vänlig(?:a)? "
    r"hälsning(?:ar)?|vänliga hälsningar|mvh|hälsningar|(?:med )?venlig hilsen|vennlig hilsen|hilsen"
    r"|z poważaniem|pozdrawiam|z wyrazami szacunku|s pozdravem|děkuji|ystävällisin terveisin|с уважением|з повагою|"
    r"спасибо|saygılarımla|iyi günler|teşekkürler|敬具|よろしくお願いいたします。?|以上|此致|敬礼|谢谢|감사합니다\.?|مع التحية|بحترام|בברכה|"
    r"תודה)[\s,.!–-]{0,5}$"
)
_DISCLAIMER = pattern(
    r"^\s{0,4}[*_]{0,3}(?:confidential(?:ity)?\s?(?:notice|note|:|and|information)|confidential\b[^\n]{0,40}$|"
    r"disclaimer|legal notice|important notice|privileged|notice:|avis de confidentialit|aviso (?:legal|de "
    r"confidencialidad)|vertraulichkeitshinweis|"
    r"haftungsausschluss|rechtlicher hinweis|avvertenza|vertrouwelijk|this (?:e-?mail|message|communication|"
    r"transmission)(?: message)?,? ?(?:\(?(?:and|including|together|with)[^\n]{0,80})?(?:is|are|may|contains?|"
    r"transmission)\b[^\n]{0,120}(?:confidential|intended|privileged|addressee|recipient)|"
    r"the (?:information|contents?)[^\n]{0,60}(?:e-?mail|message|transmission)[^\n]{0,80}(?:confidential|intended|"
    r"privileged)|diese e-?mail[^\n]{0,60}(?:vertraulich|enth[äa]lt)|der inhalt dieser e-?mail|"
    r"ce (?:message|courriel|courrier)[^\n]{0,80}(?:confidentiel|destin|exclusiv)|este (?:mensaje|correo|e-?mail|"
    r"mensagem)[^\n]{0,80}(?:confidencial|destinat|dirigid|exclusiv)|questo messaggio[^\n]{0,80}(?:riservat|"
    r"confidenzial)|"
    r"if you (?:are not|have received|received)[^\n]{0,60}(?:intended|in error|by mistake)|please consider the "
    r"environment|think before you print)"
)


@dataclass(slots=True)
class Copy:
    """What a quoted or forwarded copy says of itself in its header block or attribution line (raw values)."""

    author: str = ""
    to: str = ""
    subject: str = ""
    forwarded: bool = False


@dataclass(slots=True)
class OwnWords:
    """The result: `text` (paragraphs and lines as written), the quoted text, answers and copies found in it."""

    text: str = ""
    quoted: str = ""
    answers: list[tuple[str, str]] = field(default_factory=list)  # (the quoted lines just before, the own line)
    copies: list[Copy] = field(default_factory=list)


def clean(text: str) -> str:
    """Without invisible characters, full-width letters folded, line ends and spaces made plain."""
    text = text.translate(_INVISIBLE)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = text.translate(_FULL_WIDTH)
    return text.replace("\r\n", "\n").replace("\r", "\n")


_FULL_WIDTH: Final = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}


def own_words(text: str, author: str = "") -> OwnWords:
    """Sort the lines of a readable text. `author`: display name of From, which may stand alone above a signature."""
    return _Sorter(clean(text[:TEXT_LIMIT]).split("\n"), author).sorted()


class _Sorter:
    """Goes over the lines once. `state`: what an unmarked line here belongs to."""

    def __init__(self, lines: list[str], author: str) -> None:
        self.lines = lines
        self.author = author
        self.out = OwnWords()
        self.kept: list[str] = []
        self.quoted: list[str] = []
        self.before: list[str] = []  # quoted lines since the last own line
        self.state: Literal["own", "signature", "disclaimer"] = "own"
        self.size = 0

    def sorted(self) -> OwnWords:
        n = 0
        while n < len(self.lines) and self.size < WORDS_LIMIT:
            if _rest_is_quoted(self.lines, n, self.out):
                self.quoted += self.lines[n:]
                break
            line = self.lines[n]
            n += self._special(n, line) or self._unmarked(n, line[:LINE_LIMIT])
        self.out.text = "\n".join(self.kept).strip("\n")[:WORDS_LIMIT]
        self.out.quoted = "\n".join(self.quoted)[:WORDS_LIMIT]
        _read_copies(self.quoted, self.out)
        return self.out

    def _special(self, n: int, line: str) -> int:
        """How many lines a quotation, attribution or PGP armour takes here; 0 if none of these begins."""
        if _QUOTED.match(line[:LINE_LIMIT]) and not _is_arrow(line):
            self.quoted.append(line[:LINE_LIMIT])
            self.before.append(line[:LINE_LIMIT])
            self.state = "own"
            return 1
        if taken := _attribution(self.lines, n):
            self.out.copies.append(Copy(author=" ".join(self.lines[n : n + taken])[:500]))
            self.state = "own"
            return taken
        match _pgp(line):
            case "end":
                return _pgp_end(self.lines, n) - n + 1
            case "head":
                return 2 if n + 1 < len(self.lines) and self.lines[n + 1].startswith("Hash:") else 1
            case _:
                return 0

    def _unmarked(self, n: int, line: str) -> int:
        """Own words, signature or disclaimer."""
        if _PS.match(line) and self.state != "disclaimer":
            self.state = "own"
            self.kept.append(line)
        elif _SIGNATURE_MARK.match(line) or _MOBILE.match(line):
            if self.state == "own" and _SIGNATURE_MARK.match(line) and (self.kept or line.rstrip() == "--"):
                self.state = "signature"
        elif _DISCLAIMER.match(line) and any(x.strip() for x in self.kept):
            self.state = "disclaimer"
        elif _is_closing(self.lines, n, self.kept, self.author):
            self.kept.append(line if _CLOSING.match(line) else "")
            self.state = "signature" if self.state == "own" else self.state
        elif self.state == "own":
            self._own(line)
        return 1

    def _own(self, line: str) -> None:
        self.kept.append(line)
        self.size += len(line) + 1
        if line.strip():
            if self.before:
                self.out.answers.append(("\n".join(self.before[-6:]), line))
                if any(x.strip(" >|") for x in self.before[-3:]):
                    self.kept.insert(len(self.kept) - 1, "")
            self.before = []


def _is_arrow(line: str) -> bool:
    bare = line.lstrip()
    return bare[:1] not in (">", "|", "»") and (len(bare) < 3 or bare.split(">")[0] != bare.split(">")[0].upper())


def _rest_is_quoted(lines: list[str], n: int, out: OwnWords) -> bool:
    """Does an unmarked copy begin here, that goes on to the end?"""
    line = lines[n][:LINE_LIMIT]
    if not line.strip() or line.lstrip().startswith(">"):
        return False
    if _SEPARATOR.match(line):
        out.copies.append(_header_block(lines[n + 1 : n + 16]))
        out.copies[-1].forwarded = bool(FORWARDED.search(line))
        return True
    if _UNDERSCORES.match(line):
        block = _header_block(lines[n + 1 : n + 14])
    elif (label := _LABEL.match(line)) and LABEL_OF.get(label[1].strip().lower()) in ("from", "subject", "date", "to"):
        block = _header_block(lines[n : n + 12])
    else:
        return False
    if not block.author or not (block.to or block.subject):
        return False
    out.copies.append(block)
    return True


def _header_block(lines: list[str]) -> Copy:
    """Read `From: ... Sent: ... To: ... Subject: ...` in any of the languages; lines may be folded."""
    copy, last = Copy(), ""
    kinds: set[str] = set()
    for line in lines:
        if not line.strip(" >\t*"):
            if len(kinds) >= 2:
                break
            continue
        found = _LABEL.match(line[:LINE_LIMIT])
        kind = LABEL_OF.get(found[1].strip(" *").lower(), "") if found else ""
        if found and kind and kind not in kinds:
            kinds.add(kind)
            last = kind
            _put(copy, kind, found[2].strip(" *"))
        elif last in ("to", "subject") and not found:
            _put(copy, last, line.strip())
        elif not kinds:
            break
    return copy if len(kinds) >= 2 else Copy()


def _put(copy: Copy, kind: str, value: str) -> None:
    match kind:
        case "from":
            copy.author = value[:500]
        case "to":
            copy.to = f"{copy.to} {value}".strip()[:2000]
        case "subject":
            copy.subject = f"{copy.subject} {value}".strip()[:500]
        case _:
            pass


def _read_copies(quoted: list[str], out: OwnWords) -> None:
    """Header blocks inside the quotation (Gmail puts "> " in front of what it forwards)."""
    if any(copy.to for copy in out.copies):
        return
    bare = [line.lstrip(" >|") for line in quoted[:60]]
    for n, line in enumerate(bare):
        found = _LABEL.match(line[:LINE_LIMIT])
        if found and LABEL_OF.get(found[1].strip().lower()) == "from":
            block = _header_block(bare[n : n + 10])
            if block.author and (block.to or block.subject):
                out.copies.append(block)
                return


def _attribution(lines: list[str], n: int) -> int:
    """How many lines an attribution ("On ... wrote:") takes that begins at n; 0 if none does.

    Only with quoted lines, or nothing but blank lines, behind it; an attribution above unmarked text is taken as one
    as well, and the text then counts as quoted through `_mark_rest`.
    """
    line = lines[n][:LINE_LIMIT]
    if not line.strip() or len(line) > 400 or not (_ATTRIBUTION_START.match(line) or ("<" in line and "@" in line)):
        return 0
    joined = ""
    for count in range(1, 5):
        if n + count > len(lines) or (
            count > 1 and (not lines[n + count - 1].strip() or _QUOTED.match(lines[n + count - 1]))
        ):
            return 0
        joined = f"{joined} {lines[n + count - 1].strip()}".strip()[:600]
        if (_WROTE.search(joined[-200:]) and _HAS_DATE_OR_ADDRESS.search(joined)) or (
            _TIME.search(joined) and _ADDRESS_AND_COLON.search(joined[-250:])
        ):
            _mark_rest(lines, n + count)
            return count
    return 0


def _mark_rest(lines: list[str], start: int) -> None:
    """Below an attribution stands a quotation: if it bears no marks, all that follows gets one."""
    for n in range(start, min(len(lines), start + 4)):
        if lines[n].strip():
            if not _QUOTED.match(lines[n]):
                lines[n:] = ["> " + line for line in lines[n:]]
            return


def _pgp(line: str) -> str:
    if not line.startswith("-----BEGIN PGP "):
        return ""
    return "head" if "SIGNED MESSAGE" in line else "end"


def _pgp_end(lines: list[str], n: int) -> int:
    while n < len(lines) and not lines[n].startswith("-----END PGP "):
        n += 1
    return n


def _is_closing(lines: list[str], n: int, kept: list[str], author: str) -> bool:
    """Does the signature begin here: a closing formula with a name below it, or the author's own name alone?"""
    line = lines[n].strip()
    if not line or len(line) > 80 or not any(x.strip() for x in kept):
        return False
    following = [x.strip() for x in lines[n + 1 : n + 4] if x.strip()]
    if _CLOSING.match(line):
        return bool(following) and _is_name(following[0])
    return _is_own_name(line, author)


def _is_name(line: str) -> bool:
    words = line.strip(" ,.!").split()
    return (
        0 < len(words) <= 4
        and not line.endswith(("!", "?", ":"))
        and all(not w[0].islower() or w in ("von", "van", "de", "der", "la", "di", "da") for w in words)
    )


def _is_own_name(line: str, author: str) -> bool:
    if not author or len(line) < 2:
        return False
    name = {w for w in author.lower().replace(",", " ").replace('"', " ").split() if len(w) > 1}
    words = line.lower().strip(" ,.-–!").replace(",", " ").split()
    return (
        0 < len(words) <= 5
        and bool(name)
        and all(w in name or (len(w) <= 2 and w.endswith(".")) or w == "&" for w in words)
    )
