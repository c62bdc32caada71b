"""The writer's own words: what is new in a message, without quotations, signatures and disclaimers. Linear time.

Goes over the lines once, with a few lines of look-ahead. Answers between or below quoted lines are own words; each
knows the quoted lines it follows, so that "yes, do that" can be understood.
"""

# ruff: noqa: E501  (field names and formulas in many languages are data)

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from daemon.mail.header_names import LABEL_OF
from daemon.mail.patterns import pattern

TEXT_LIMIT: Final = 400_000  # characters of readable text that are looked at
WORDS_LIMIT: Final = 65_536  # characters of own words
_LABEL_LIMIT: Final = max(map(len, LABEL_OF)) + 1
_SHORT: Final = 150  # characters of an attribution without an address
_INLINE_LIMIT: Final = 900  # characters of a line with several fields on it
LINE_LIMIT: Final = 4_000  # characters of one line that patterns see

_INVISIBLE: Final = dict.fromkeys(
    (173, 847, 1564, 6158, *range(8203, 8208), *range(8234, 8239), *range(8288, 8293), *range(8294, 8304), 65279)
) | {0x00A0: " ", 0x202F: " ", 0x3000: " ", 0x2028: "\n", 0x2029: "\n", 0x85: "\n", 0x0B: "\n", 0x0C: "\n"}

_QUOTED = pattern(r"^\s{0,6}(?:[a-z]{1,4})?(?:>|\|(?:\s|$)|»\s)")
_UNDERSCORES = pattern(r"^\s{0,4}(?:_{10,200}|\*{10,200}|-{20,200}|={20,200})\s{0,4}$")
_SEPARATOR = pattern(
    r"""^[\s>]{0,5}(?:[-_=*]{2,30}\s{0,3}(?:
      original(?:\s(?:message|appointment|email|nachricht)|nachricht|meddelande|e-mail|mail|)
    | urspr(?:ü|ue)ngliche\s(?:nachricht|e-mail) | weitergeleitete\s(?:nachricht|e-mail)
    | message\s(?:d['’]origine|original|transf[ée]r[ée]|reenviado|transmis) | mensaje\s(?:original|reenviado) | mensagem\s(?:original|encaminhada|reenviada)
    | mensagem\sreencaminhada | messaggio\s(?:originale|inoltrato) | oorspronkelijk\sbericht | doorgestuurd\sbericht | forwarded\s(?:message|by|mail|email)
    | (?:videresendt|vidarebefordrat|ursprungligt)\s(?:meddelelse|meddelande|besked) | oprindelig\smeddelelse | opprinnelig\smelding | videresendt\smelding
    | wiadomo(?:ść|sc)\s(?:oryginalna|przekazana) | oryginalna\swiadomo(?:ść|sc) | przekazana\swiadomo(?:ść|sc) | p(?:ů|u)vodn(?:í|i)\szpr(?:á|a)va
    | (?:p(?:ř|r)eposlan(?:á|a)|preposlan(?:á|a))\s(?:zpr(?:á|a)va|spr(?:á|a)va) | исходное\sсообщение | пересылаемое\s(?:сообщение|письмо) | переслан\w{2,6}\sсообщение
    | перенаправлене\sповідомлення | orijinal\smesaj | (?:i|ı)letilen\s(?:ileti|mesaj) | eredeti\s(?:ü|u)zenet | tov(?:á|a)bb(?:í|i)tott\s(?:ü|u)zenet
    | alkuper(?:ä|a)inen\sviesti | v(?:ä|a)litetty\sviesti | mesaj\s(?:original|redirec(?:ț|t|ţ)ionat) | prosljeđena\sporuka | edastatud\s(?:kiri|s(?:õ|o)num)
    | 元のメッセージ | 転送(?:された)?メッセージ | original\s메시지 | 原始邮件 | 原始郵件 | 转发邮件 | الرسالة\sالأصلية | הודעה\s(?:מקורית|שהועברה)
    | メッセージを転送 | wiadomo(?:ść|sc)\sprzes(?:ł|l)ana | proslije(?:đ|d)ena\sporuka | prosle(?:đ|d)ena\sporuka | ursprungligt\smejl | vidarebefordrat\s(?:mejl|e-post)
    | 전달된\s메시지 | 轉寄郵件 | 轉寄的郵件 | 转发的邮件 | الرسالة\sالمعاد | رسالة\sمعاد | препратено\sсъобщение | оригинално\sсъобщение | оригінальне\sповідомлення
    | αρχικό\sμήνυμα | προωθημένο\sμήνυμα | posredovano\ssporo(?:č|c)ilo | izvirno\ssporo(?:č|c)ilo | missatge\s(?:original|reenviat) | pesan\s(?:asli|terusan|yang\sditeruskan)
    | p(?:ô|o)vodn(?:á|a)\sspr(?:á|a)va | izvorna\sporuka | originalna\sporuka | algne\s(?:kiri|s(?:õ|o)num) | (?:thư|tin\snhắn)\s(?:gốc|đã\schuyển\stiếp|được\schuyển\stiếp)
    )[\s:]{0,4}[^\n]{0,60}$
    | forwarded\s(?:message|email|mail):\s{0,4}$ | videresendt\s(?:melding|meddelelse|besked):\s{0,4}$ | vidarebefordrat\s(?:mejl|meddelande):\s{0,4}$
    | (?:v(?:ä|a)litetty\sviesti\salkaa|v(?:ä|a)litetyn\sviestin\salku|zapo(?:č|c)ni\sproslije(?:đ|d)enu\sporuku|po(?:č|c)etak\sproslije(?:đ|d)ene\sporuke|in(?:í|i)cio\sda\smensagem\sreencaminhada
    | (?:î|i)nceputul\smesajului\s(?:redirec|retrimis)|(?:î|i)ncepe\smesajul\s(?:redirec|retrimis)|za(?:č|c)iatok\sprepos(?:ielanej|lanej)\sspr(?:á|a)vy|iletilen\s(?:e-posta|ileti|mesaj)n?[ıi]?n?\sba(?:ş|s)lang
    | (?:İ|i)letilmiş\smesaj\sbaşlangıc|начало\sпереадресованного|start\sp(?:å|a)\svideresendt\s(?:melding|besked|e-post)|begynnelse\sp(?:å|a)\svideresendt|inici\sdel\smissatge\sreenviat|nachfolgend\sdie\sweitergeleitete)[^\n]{0,40}$
    | (?:begin\sforwarded\smessage|anfang\sder\sweitergeleiteten\s(?:nachricht|e-mail)|d[ée]but\sdu\smessage\s(?:r[ée]exp[ée]di[ée]|transf[ée]r[ée])
    | inicio\sdel\smensaje\sreenviado|inizio\smessaggio\sinoltrato|begin\sdoorgestuurd\sbericht|vidarebefordrat\smejl|start\spå\svideresendt\sbesked
    | za(?:č|c)(?:á|a)tek\sp(?:ř|r)epos(?:í|i)lan(?:é|e)\szpr(?:á|a)vy|pocz(?:ą|a)tek\sprzekazywanej\swiadomo(?:ś|s)ci|in(?:í|i)cio\sda\smensagem\s(?:encaminhada|reenviada)
    | начало\sпереадресованного\s(?:письма|сообщения)|початок\sлиста,\sщо\sпересилається|转发的邮件|以下は転送されたメールです|tov(?:á|a)bb(?:í|i)tott\slev(?:é|e)l\skezdete
    | reply\sabove\sthis\sline)[^\n]{0,40}$ )""",
    verbose=True,
)
FORWARDED = pattern(
    r"forward|fwd|weitergeleitet|transf[ée]r|transmis|reenvia|inoltrat|doorgestuurd|vidarebefordra|videresend|przekaz|przesłan|p[řr]epos[lí]"
    r"|preposiel|пересл|переадрес|пересыл|пересил|перенаправ|препрат|прослеђ|転送|转发|轉寄|전달|v[äa]litet|iletil|encaminhad|reencaminh|réexp"
    r"|tov[áa]bb[íi]t|redirec|proslij?e|edasta|προωθ|posredovan|diteruskan|terusan|chuyển tiếp|المعاد|שהועבר"
)

_LABEL = pattern(
    r"^[\s>*_]{0,8}([^\s:*：<>@][^:*：<>@\n]{0,22}?)[\s*]{0,4}[:：]\*{0,2}(?:\s|$|(?=[^/\s]))([^\n]{0,2000})$"
)

# "On <date>, <name> <address> wrote:" and its like. The verb stands at the end, or within and the line ends in a colon.
_VERB = (
    r"\b(?:wrote|writes|said|schrieb|geschrieben|écrit|ecrit|escribi[óo]|ha\sscritto|scrive|scrisse|schreef|escreveu|va\sescriure|skrev|"
    r"skreiv|nap[ií]?sa[lł]a?|pisze|p[ií]še|kirjoitti|пишет|на?писала?|написав|писав|пише|написа|yazd[ıi]|írta|a\sscris|je\snapisao|"
    r"napisao|napisala|je\spisal|kirjutas|rašė|rakstīja|έγραψε|viết|menulis|كتب|כתב|נכתב)\b"
    r"|เขียน|のメール|書きました|書いた|写道|寫道|님이|작성|\bنوشت"
)
_WROTE = pattern(
    rf"(?:(?:{_VERB})(?:\s?\((?:a|а|ла|ה|la|ла\))\)?|/la)?(?:\s(?:het|the|das|folgendes|følgende|följande|alla|følgjande|le|lo|el|la|siguiente|seguente"
    r"|seguinte|volgende|following|folgende|následující|следующее|наступне|geschreven)){0,3}|geschreven)[\s-]{0,8}[:：]?[\s-]{0,8}$"
)
_WROTE_WITHIN = pattern(_VERB)
_I_WROTE = pattern(
    r"\b(?:i|we)\s(?:have\s|had\s|already\s|once\s)?(?:wrote|written|said)\b|\b(?:habe\sich|haben\swir|ich\shabe|wir\shaben|schrieb\sich|ich\sschrieb)\b"
    r"|\bj['’]ai\b|\bnous\savons\b|\bho\sscritto\b|\bhe\sescrito\b|\b(?:ik\sschreef|schreef\sik|heb\sik|ik\sheb)\b|\b(?:jag|jeg)\sskrev\b|\bskrev\s(?:jag|jeg)\b"
    r"|\bя\s(?:уже\s)?(?:на)?пис|\b(?:kirjoitin|yazdım|írtam|escrevi|escribí)\b"
)
_ATTRIBUTION_START = pattern(
    r"^[\s>-]{0,8}(?:on\s|am\s|le\s|el\s|il\s(?:giorno\s)?|op\s|em\s|a\s|den\s|d\.\s|på\s|w\sdniu|dnia\s|dne\s|dňa\s|dana\s|в\s|у\s|la\s|pe\s|la\sdata|în\s|στις\s|vào\s|pada\s|在|于|於|"
    r"\d{1,4}[\s./年년-]|[^\W\d_]{1,14}[.,]{0,2}\s\d|[^\W\d_]{2,14}\.?,\s|בתאריך|ב-|في\s|"
    rf"[\"“„«][^\"”»\n]{{1,80}}[\"”“»]|[^\n:]{{1,60}}\s(?:{_VERB}))"
)
# In any language: a time of day and "<address>", with a colon at the end.
_TIME = pattern(r"\d{1,2}\s?[:.h]\s?\d\d|\d\s?(?:uhr|[ap]\.?m\b)")
_ADDRESS_AND_COLON = pattern(r"[<(\[]\s?(?:mailto:)?[^\s@<>]{1,64}@[^\s@<>]{1,100}[>)\]][^\n<]{0,60}[:：]\W?$")
_ADDRESS_AT_END = pattern(r"[<(\[]\s?(?:mailto:)?[^\s@<>]{1,64}@[^\s@<>]{1,100}[>)\]]\s?[:：]?$")
_BRACKETED = pattern(r"(?:[<(\[]|&lt;)\s?(?:mailto:)?[^\s@<>]{1,64}@")
_STARTS_WITH_DATE = pattern(r"^[\s>]{0,4}(?:[^\W\d_]{1,12}[.,]{0,2}\s)?\d{1,4}[./年년-]\s?\d{1,2}")
_HAS_DATE = pattern(r"\d{1,4}[./:年년-]\s?\d{1,2}|\d{4}")
_HAS_DATE_OR_ADDRESS = pattern(r"\d{1,4}[./:年년-]\s?\d{1,2}|\d{4}|[^\s@]{1,64}@[^\s@]{1,100}|\bvia\b")
# "---- some words ----" in any language; what follows tells whether it is the head of a copy.
_DASHED = pattern(
    r"^[\s>]{0,6}[-_=*]{3,40}\s{0,3}([^\W\d_][^\n<>@:=*_]{2,70}?)\s{0,3}[-_=*]{3,40}[\s:]{0,4}([^\n]{0,900})$"
)
_SIGNATURE_MARK = pattern(r"(?:--|—|–|-- |_{2,9}|- -|\*{3,9}|={3,19}|~{2,19})\s?$")
_PS = pattern(r"\s{0,4}(?:p\.?\s?p?\.?s\b|n\.?b\b|post\s?scriptum|пс\b|p\.\s?d\b|з\.\s?і\.|追伸)")
_MOBILE = pattern(
    r"^[\s<(\[*_~-]{0,6}(?:"
    r"sent (?:from|via|with|by|using) \[?(?:my|mail|outlook|yahoo|gmail|proton|the|a|galaxy|samsung|iphone|mobile)\b[^\n]{0,200}$"
    r"|sent (?:from|via|with) [^\n@!?,;]{1,50}$"
    r"|from my (?:iphone|ipad|ipod|phone|mobile|android|blackberry|samsung|galaxy|cell)\b[^\n]{0,30}$"
    r"|(?:get|download) \[?outlook for |[^\n@]{0,40}\boutlook (?:für|pour|para|per|voor|för|til|dla|на|для|pro|pre|pentru|için|for) (?:ios|android|mac)\b[^\n]{0,120}$"
    r"|von (?:meinem?|unterwegs)[^\n]{0,60}gesendet|gesendet (?:von|vom|mit|aus|über)|(?:diese (?:nachricht|e-?mail|mail) )(?:wurde )?(?:von|mit|über)[^\n]{0,90}(?:gesendet|verschickt|versendet)"
    r"|envoy[ée]e? (?:de|depuis|à partir|avec|via|par)\b|(?:télécharger|obtenez) outlook"
    r"|enviad[oa] (?:desde|do|da|de|via|vía|a partir|pelo|con|com|mediante)\b|enviat des d"
    r"|inviat[oa] (?:da|dal|dall|con|tramite)\b"
    r"|(?:verstuurd|verzonden) (?:vanaf|vanuit|via|met|van|door)\b|skickat (?:från|med|via)|skickades från|sendt (?:fra|med|via)\b|sent frá"
    r"|lähetetty|saadetud (?:minu )?[^\n]{0,20}(?:iphone|ipad|android|outlook|telefon|mobi)|wysłan[eoay] (?:z|ze|za|przez)\b|(?:odesláno|posláno|odoslané|poslané) (?:z|ze|zo|pomoc)"
    r"|poslano (?:s|sa|iz|z|preko)\b|trimis[ă]? (?:de pe|din|de la|cu|prin)\b|[^\n]{0,40}(?:ról|ről|ról|ből|ból) küldve|küldve [^\n]{0,40}(?:ról|ről)|στάλθηκε από|изпратено от"
    r"|отправлено (?:с|со|из|от|через)\b|надіслано (?:з|із|зі|через)\b|послато са"
    r"|[^\n]{0,30}(?:ımdan|imdan|umdan|ümden|imden|dan|den) gönderildi|iphone'?umdan|[^\n]{0,30}から送信|发自|來自我的|来自我的|從我的|从我的|傳送自|나의 |[^\n]{0,30}에서 보냄|נשלח מ|أ?رسلت من|مرسل من|تم الإرسال من"
    r"|(?:được|đã) gửi từ|dikirim dari|ส่งจาก|terkirim dari"
    r"|this (?:e-?mail|message) (?:was|has been) (?:sent(?! from (?!my|an?|the|outlook|mail)\b)|scanned|checked)|virus-free|virenfrei|diese e-?mail wurde von)"
)
_LIST_WORDS = pattern(r"mailing list$|^to unsubscribe|listinfo|mailman|^list-\w{2,12}:|groups\.google|googlegroups")
_DEVICE = pattern(
    r"i-?phone|ipad|ipod|android|outlook|mail\b|mailbox|posteo|yahoo|gmail|proton|samsung|galaxy|huawei|xiaomi|nokia|blackberry|windows|mobi|\bphone|\bcell|telefon"
    r"|téléphone|teléfono|smartphone|handy|tablet|unterwegs|scan|check|virus|viren|телефон|смартфон|планшет|手机|手機"
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
    r"(?:este|esta) (?:correo|mensaje|mensagem|e-?mail|comunicaci[óo]n)[^\n]{0,120}(?:confiden|exclusiv)|le informazioni contenute in quest|"
    r"dit (?:e-?mail)?bericht[^\n]{0,100}(?:vertrouwelijk|bestemd)|de informatie in dit (?:e-?mail)?bericht|deze e-?mail[^\n]{0,80}(?:vertrouwelijk|bestemd)|"
    r"det(?:ta|te) (?:e-?post|meddelande|mejl)[^\n]{0,100}(?:konfiden|avsett|sekret)|denne (?:e-?post|e-?mail|mail|meddelelse)[^\n]{0,100}(?:fortroli|konfiden)|"
    r"tämä (?:sähköposti|viesti)[^\n]{0,100}(?:luottamuks|tarkoitettu)|ta wiadomość[^\n]{0,100}(?:poufn|przeznacz)|niniejsza wiadomość|treść tej wiadomości|"
    r"tato zpráva[^\n]{0,100}(?:důvěrn|určen)|(?:настоящее|данное|это) (?:сообщение|письмо)[^\n]{0,100}(?:конфиденц|предназнач)|це повідомлення[^\n]{0,100}конфіденц|"
    r"bu (?:e-?posta|mesaj|ileti)[^\n]{0,100}gizli|ez az (?:e-?mail|üzenet)[^\n]{0,100}bizalmas|acest (?:mesaj|e-?mail)[^\n]{0,100}confiden|"
    r"(?:本|この)(?:メール|電子メール|邮件|郵件|电子邮件)[^\n]{0,60}(?:機密|机密|保密|秘密)|avviso di riservatezza|aviso de confidencialidade|vertraulichkeit:|"
    r"l['’]information contenue dans ce|les informations contenues dans ce|die (?:in dieser e-?mail enthaltenen informationen|informationen in dieser e-?mail sind)|"
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
        if taken := _attribution(self.lines, n) or int(_is_bare_attribution(self.lines, n)):
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
        elif _SIGNATURE_MARK.match(line) or _is_mobile(line):
            if self.state == "own" and _SIGNATURE_MARK.match(line) and (self.kept or line.rstrip() == "--"):
                self.state = "signature"
        elif _is_list_footer(self.lines, n) and any(x.strip() for x in self.kept):
            self.state = "signature" if self.state == "own" else self.state
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


def _is_mobile(line: str) -> bool:
    """ "Sent from my phone" and its like: names a device or program, or is short and begins like a sentence."""
    if not _MOBILE.match(line):
        return False
    bare = line.strip()
    return bool(_DEVICE.search(bare[:300])) or (len(bare.split()) <= 8 and not bare[0].islower())


def _is_list_footer(lines: list[str], n: int) -> bool:
    """A line drawn above what list software adds at the end: a few lines that name the mailing list."""
    if not _UNDERSCORES.match(lines[n][:LINE_LIMIT]):
        return False
    rest = [line[:300] for line in lines[n + 1 : n + 12] if line.strip()]
    return len(lines) - n <= 12 and any(_LIST_WORDS.search(line) for line in rest)


def _is_arrow(line: str) -> bool:
    bare = line.lstrip()
    return bare[:1] not in (">", "|", "»") and (len(bare) < 3 or bare.split(">")[0] != bare.split(">")[0].upper())


def _rest_is_quoted(lines: list[str], n: int, out: OwnWords) -> bool:
    """Does an unmarked copy begin here, that goes on to the end?"""
    line = lines[n][:LINE_LIMIT]
    if not line.strip() or line.lstrip().startswith(">"):
        return False
    block = _separated(lines, n) or _headed(lines, n)
    if block is None:
        return False
    out.copies.append(block)
    return True


def _separated(lines: list[str], n: int) -> Copy | None:
    """The copy below "-----Original Message-----" and its like; the words may be in a language not known here."""
    line = lines[n][:LINE_LIMIT]
    known, dashed = _SEPARATOR.match(line), _DASHED.match(line)
    if not known and not dashed:
        return None
    inline = _split_fields(dashed[2]) if dashed and dashed[2] else []
    block = _header_block(inline or lines[n + 1 : n + 16])
    block.forwarded = bool(FORWARDED.search(line))
    if known and (block.forwarded or not _next_is_quoted(lines, n + 1)):
        return block
    has_fields = block.author and (block.to or block.subject)
    return block if has_fields and (inline or not dashed or not dashed[2]) else None


def _headed(lines: list[str], n: int) -> Copy | None:
    """The copy below a block of fields, perhaps with a line of underscores above it."""
    line = lines[n][:LINE_LIMIT]
    if _UNDERSCORES.match(line):
        block = _header_block(lines[n + 1 : n + 14])
    elif (label := _LABEL.match(line)) and LABEL_OF.get(label[1].strip().lower()) in ("from", "subject", "date", "to"):
        block = _header_block(lines[n : n + 12])
        if not block.author and len(line) < _INLINE_LIMIT:
            block = _header_block(_split_fields(line.strip()))
    else:
        return None
    return block if block.author and (block.to or block.subject) else None


def _split_fields(line: str) -> list[str]:
    """Yahoo puts all fields on one line: "From: Ann <a@b.example>To: Bob ... GMT+1Subject: News"."""
    line = line[:_INLINE_LIMIT]
    cuts = [start for colon, char in enumerate(line) if char in ":：" and (start := _label_start(line, colon)) >= 0]
    return [line[start:end] for start, end in pairwise([*cuts, len(line)])] if cuts and not cuts[0] else []


def _label_start(line: str, colon: int) -> int:
    """Where the longest field name that ends at this colon begins; -1 if none does."""
    for start in range(max(0, colon - _LABEL_LIMIT), colon):
        glued = start > 0 and line[start - 1].isalpha() and not (line[start - 1].isupper() and line[start].isupper())
        if not glued and not line[start].isspace() and line[start:colon].rstrip().lower() in LABEL_OF:
            return start
    return -1


def _next_is_quoted(lines: list[str], n: int) -> bool:
    """Is the next line that says something, among the next four, marked as quoted?"""
    following = next((line for line in lines[n : n + 4] if line.strip()), "")
    return bool(_QUOTED.match(following[:LINE_LIMIT]))


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

    An attribution above unmarked text is taken as one as well, and the text then counts as quoted (`_mark_rest`).
    """
    line = lines[n][:LINE_LIMIT]
    if not line.strip() or len(line) > 400:
        return 0
    if not _ATTRIBUTION_START.match(line) and not ("<" in line and "@" in line):
        return 0
    joined = ""
    for m in range(n, min(n + 8, len(lines))):
        piece = lines[m][:LINE_LIMIT].strip()
        is_open = joined.count("<") > joined.count(">")
        if m > n and not piece and not is_open and not _next_bracket(lines, m):
            return 0
        if m > n and not is_open and (_QUOTED.match(lines[m]) or m - n > 3):
            return 0
        joined = f"{joined} {piece}".strip()[:600]
        if piece and _is_attribution(joined, _next_is_quoted(lines, m + 1)):
            _mark_rest(lines, m + 1)
            return m + 1 - n
    return 0


def _next_bracket(lines: list[str], n: int) -> bool:
    """Is an address in "<...>" torn off by a blank line?"""
    return n + 1 < len(lines) and lines[n + 1].strip()[:1] == "<"


def _is_attribution(joined: str, above_quote: bool) -> bool:
    end = joined[-250:]
    if not end.endswith((":", "：", ">", ")", "]")) and not _WROTE.search(end[-90:]):
        return False
    if not above_quote and _I_WROTE.search(joined):
        return False  # what he wrote himself is likely to follow
    bracketed = bool(_BRACKETED.search(joined))
    verb_within = bool(_WROTE_WITHIN.search(joined))
    has_colon = joined.endswith((":", "："))
    return bool(
        (_WROTE.search(end[-90:]) and _HAS_DATE_OR_ADDRESS.search(joined))
        or (_TIME.search(joined) and _ADDRESS_AND_COLON.search(end))
        or (bracketed and has_colon and _HAS_DATE.search(joined) and (above_quote or verb_within))
        or (has_colon and verb_within and len(joined) <= _SHORT and (_TIME.search(joined) or _is_dated(joined)))
        or (above_quote and _STARTS_WITH_DATE.match(joined) and _ADDRESS_AT_END.search(end))
    )


def _is_dated(joined: str) -> bool:
    """Does it begin as an attribution with a date does ("Am 3. März 2025 schrieb Ann:")?"""
    found = _ATTRIBUTION_START.match(joined)
    return bool(found and not _WROTE_WITHIN.search(found[0]) and _HAS_DATE.search(joined))


def _is_bare_attribution(lines: list[str], n: int) -> bool:
    """Is it "-----Original Message-----", or "Ann Example wrote:" without date and address, above marked lines?"""
    line = lines[n][:LINE_LIMIT].strip()
    if len(line) > _SHORT or not _next_is_quoted(lines, n + 1):
        return False
    if _SEPARATOR.match(line):
        return True
    return (
        len(line.split()) <= 5
        and line.endswith((":", "："))
        and bool(_WROTE.search(line))
        and not _I_WROTE.search(line)
    )


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
    if len(words) == 1 and len(words[0]) == 1:
        return words[0].isalpha()  # an initial
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
