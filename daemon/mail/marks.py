"""What marks a line as quoted, as the head of a copy, a signature, a closing or a disclaimer, in many languages."""

# ruff: noqa: E501 - an alternative per language; broken inside its brackets, none could be read by who speaks it

from __future__ import annotations

from daemon.mail.patterns import pattern

QUOTED = pattern(r"^\s{0,6}(?:[a-z]{1,4})?(?:>|\|(?:\s|$)|»\s)")
UNDERSCORES = pattern(r"^\s{0,4}(?:_{10,200}|\*{10,200}|-{20,200}|={20,200})\s{0,4}$")
SEPARATOR = pattern(
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

LABEL = pattern(
    r"^[\s>*_]{0,8}([^\s:*：<>@][^:*：<>@\n]{0,22}?)[\s*]{0,4}[:：]\*{0,2}(?:\s|$|(?=[^/\s]))([^\n]{0,2000})$"
)

# "On <date>, <name> <address> wrote:" and its like. The verb stands at the end, or within and the line ends in a colon.
_VERB = (
    r"\b(?:wrote|writes|said|schrieb|geschrieben|écrit|ecrit|escribi[óo]|ha\sscritto|scrive|scrisse|schreef|escreveu|va\sescriure|skrev|"
    r"skreiv|nap[ií]?sa[lł]a?|pisze|p[ií]še|kirjoitti|пишет|на?писала?|написав|писав|пише|написа|yazd[ıi]|írta|a\sscris|je\snapisao|"
    r"napisao|napisala|je\spisal|kirjutas|rašė|rakstīja|έγραψε|viết|menulis|كتب|כתב|נכתב)\b"
    r"|เขียน|のメール|書きました|書いた|写道|寫道|님이|작성|\bنوشت"
)
WROTE = pattern(
    rf"(?:(?:{_VERB})(?:\s?\((?:a|а|ла|ה|la|ла\))\)?|/la)?(?:\s(?:het|the|das|folgendes|følgende|följande|alla|følgjande|le|lo|el|la|siguiente|seguente"
    r"|seguinte|volgende|following|folgende|následující|следующее|наступне|geschreven)){0,3}|geschreven)[\s-]{0,8}[:：]?[\s-]{0,8}$"
)
WROTE_WITHIN = pattern(_VERB)
I_WROTE = pattern(
    r"\b(?:i|we)\s(?:have\s|had\s|already\s|once\s)?(?:wrote|written|said)\b|\b(?:habe\sich|haben\swir|ich\shabe|wir\shaben|schrieb\sich|ich\sschrieb)\b"
    r"|\bj['’]ai\b|\bnous\savons\b|\bho\sscritto\b|\bhe\sescrito\b|\b(?:ik\sschreef|schreef\sik|heb\sik|ik\sheb)\b|\b(?:jag|jeg)\sskrev\b|\bskrev\s(?:jag|jeg)\b"
    r"|\bя\s(?:уже\s)?(?:на)?пис|\b(?:kirjoitin|yazdım|írtam|escrevi|escribí)\b"
)
ATTRIBUTION_START = pattern(
    r"^[\s>-]{0,8}(?:on\s|am\s|le\s|el\s|il\s(?:giorno\s)?|op\s|em\s|a\s|den\s|d\.\s|på\s|w\sdniu|dnia\s|dne\s|dňa\s|dana\s|в\s|у\s|la\s|pe\s|la\sdata|în\s|στις\s|vào\s|pada\s|在|于|於|"
    r"\d{1,4}[\s./年년-]|[^\W\d_]{1,14}[.,]{0,2}\s\d|[^\W\d_]{2,14}\.?,\s|בתאריך|ב-|في\s|"
    rf"[\"“„«][^\"”»\n]{{1,80}}[\"”“»]|[^\n:]{{1,60}}\s(?:{_VERB}))"
)
# In any language: a time of day and "<address>", with a colon at the end.
TIME = pattern(r"\d{1,2}\s?[:.h]\s?\d\d|\d\s?(?:uhr|[ap]\.?m\b)")
ADDRESS_AND_COLON = pattern(r"[<(\[]\s?(?:mailto:)?[^\s@<>]{1,64}@[^\s@<>]{1,100}[>)\]][^\n<]{0,60}[:：]\W?$")
ADDRESS_AT_END = pattern(r"[<(\[]\s?(?:mailto:)?[^\s@<>]{1,64}@[^\s@<>]{1,100}[>)\]]\s?[:：]?$")
BRACKETED = pattern(r"(?:[<(\[]|&lt;)\s?(?:mailto:)?[^\s@<>]{1,64}@")
STARTS_WITH_DATE = pattern(r"^[\s>]{0,4}(?:[^\W\d_]{1,12}[.,]{0,2}\s)?\d{1,4}[./年년-]\s?\d{1,2}")
HAS_DATE = pattern(r"\d{1,4}[./:年년-]\s?\d{1,2}|\d{4}")
HAS_DATE_OR_ADDRESS = pattern(r"\d{1,4}[./:年년-]\s?\d{1,2}|\d{4}|[^\s@]{1,64}@[^\s@]{1,100}|\bvia\b")
# "---- some words ----" in any language; what follows tells whether it is the head of a copy.
DASHED = pattern(
    r"^[\s>]{0,6}[-_=*]{3,40}\s{0,3}([^\W\d_][^\n<>@:=*_]{2,70}?)\s{0,3}[-_=*]{3,40}[\s:]{0,4}([^\n]{0,900})$"
)
SIGNATURE_MARK = pattern(r"(?:--|—|–|-- |_{2,9}|- -|\*{3,9}|={3,19}|~{2,19})\s?$")
PS = pattern(r"\s{0,4}(?:p\.?\s?p?\.?s\b|n\.?b\b|post\s?scriptum|пс\b|p\.\s?d\b|з\.\s?і\.|追伸)")
MOBILE = pattern(
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
LIST_WORDS = pattern(r"mailing list$|^to unsubscribe|listinfo|mailman|^list-\w{2,12}:|groups\.google|googlegroups")
DEVICE = pattern(
    r"i-?phone|ipad|ipod|android|outlook|mail\b|mailbox|posteo|yahoo|gmail|proton|samsung|galaxy|huawei|xiaomi|nokia|blackberry|windows|mobi|\bphone|\bcell|telefon"
    r"|téléphone|teléfono|smartphone|handy|tablet|unterwegs|scan|check|virus|viren|телефон|смартфон|планшет|手机|手機"
)
CLOSING = pattern(
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
DISCLAIMER = pattern(
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
