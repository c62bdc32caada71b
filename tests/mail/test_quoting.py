"""Own words of a text: small cases of every kind, input -> what the writer says himself."""

# ruff: noqa: E501  (mail lines in many languages are data)

from __future__ import annotations

import time

import pytest

from daemon.mail import quoting

QUOTE = "> Hello Ann,\n> here is our letter. Unsubscribe at the end.\n"
COPY = "Hello Ann,\nhere is our letter. Unsubscribe at the end.\n"


def own(text: str, author: str = "") -> str:
    """Own words, each run of white space one space."""
    return " ".join(quoting.own_words(text, author).text.split())


# ------------------------------------------------------------------ attribution lines

ATTRIBUTIONS = {
    "en": "On Mon, Mar 3, 2025 at 10:15 AM Quill <letter@news.example> wrote:",
    "en, Apple": "On 3 Mar 2025, at 10:15, Quill <letter@news.example> wrote:",
    "en, Zoho": "---- On Mon, 03 Mar 2025 10:15:36 +0530 Quill<letter@news.example> wrote ----",
    "en, wrapped": "On Mon, Mar 3, 2025 at 10:15 AM The Quill Letter of the House <\nletter@news.example> wrote:",
    "en, verb alone": "On Mon, Mar 3, 2025 at 10:15 AM, Quill <letter@news.example>\nwrote:",
    "en, torn": "On Mon, 3 Mar 2025 at 10:15 Quill\n\n<\nmailto:Quill <letter@news.example>\n> wrote:",
    "en, Thunderbird": "On 3/3/25 10:15, Quill wrote:",
    "en, Yahoo": "On Monday, 3 March 2025 at 10:15:00 GMT+1, Quill <letter@news.example> wrote:",
    "de": "Am 03.03.2025 um 10:15 schrieb Quill:",
    "de, Outlook": 'Am 03/03/2025, 10:15 schrieb "Quill" <letter@news.example>:',
    "de, date alone": "Am 3. März 2025 schrieb Quill:",
    "sv, date alone": "Den måndagen den 3:e mars 2025 skrev Quill:",
    "de, Gmail": "Quill <letter@news.example> schrieb am Mo., 3. März 2025, 10:15:",
    "de, wrapped": "Quill <letter@news.example> schrieb am Mo., 3.\nMärz 2025 um 10:15 Uhr:",
    "fr": "Le lun. 3 mars 2025 à 10:15, Quill <letter@news.example> a écrit :",
    "fr, Thunderbird": "Le 03/03/2025 à 10:15, Quill a écrit :",
    "fr, Outlook": "Le 03/03/2025 10:15, « Quill » <letter@news.example> a écrit :",
    "fr, wrapped": "Le lun. 3 mars 2025 à 10:15, Quill <letter@news.example> a\nécrit :",
    "es": "El lun, 3 mar 2025 a las 10:15, Quill (<letter@news.example>) escribió:",
    "es, Thunderbird": "El 3/3/25 a las 10:15, Quill escribió:",
    "it, Thunderbird": "Il 03/03/2025 10:15, Quill ha scritto:",
    "it": "Il giorno lun 3 mar 2025 alle ore 10:15 Quill <letter@news.example> ha scritto:",
    "it, wrapped": "Il giorno lun 3 mar 2025 alle ore 10:15 Quill <\nletter@news.example> ha scritto:",
    "nl, Thunderbird": "Op 03-03-2025 om 10:15 schreef Quill:",
    "nl, Apple": "Op 3 mrt. 2025, om 10:15 heeft Quill <letter@news.example> het volgende geschreven:",
    "nl": "Op ma 3 mrt 2025 om 10:15 schreef Quill <letter@news.example>:",
    "nl, heeft": "Op 3 mrt. 2025 10:15 schreef Quill <letter@news.example> het volgende\ngeschreven:",
    "pt": "Em seg., 3 de mar. de 2025 às 10:15, Quill <letter@news.example> escreveu:",
    "pt, Apple": "No dia 3 de mar. de 2025, às 10:15, Quill <letter@news.example> escreveu:",
    "pt, Outlook": 'A 03/03/2025, 10:15, "Quill" <letter@news.example> escreveu:',
    "pt, Thunderbird": "Em 03/03/2025 10:15, Quill escreveu:",
    "sv, Thunderbird": "Den 2025-03-03 kl. 10:15, skrev Quill:",
    "no, Outlook": "På 03/03/2025 10:15, skrev Quill <letter@news.example>:",
    "sv": "Den mån 3 mars 2025 kl 10:15 skrev Quill <letter@news.example>:",
    "da": "Den man. 3. mar. 2025 kl. 10.15 skrev Quill <letter@news.example>:",
    "no": "man. 3. mars 2025 kl. 10:15 skrev Quill <letter@news.example>:",
    "fi": "Quill <letter@news.example> kirjoitti 3.3.2025 kello 10.15:",
    "fi, Thunderbird": "Quill kirjoitti 3.3.2025 klo 10.15:",
    "pl, Apple": "Wiadomość napisana przez Quill <letter@news.example> w dniu 3 mar 2025, o godz. 10:15:",
    "pl, Thunderbird": "W dniu 03.03.2025 o 10:15, Quill pisze:",
    "pl, Outlook": "Dnia 03/03/2025, 10:15 użytkownik „Quill” <letter@news.example> napisał:",
    "pl": "pon., 3 mar 2025 o 10:15 Quill <letter@news.example> napisał(a):",
    "cs": "Dne po 3. 3. 2025 10:15 uživatel Quill <letter@news.example> napsal:",
    "cs, Apple": "Dne 3. 3. 2025 v 10:15, Quill <letter@news.example>:",
    "cs, Thunderbird": "Dne 03. 03. 25 v 10:15 Quill napsal(a):",
    "sk, Thunderbird": "Dňa 3. 3. 2025 o 10:15 Quill napísal(a):",
    "sk": "Dňa po 3. 3. 2025 10:15 používateľ Quill <letter@news.example> napísal:",
    "hu": "Quill <letter@news.example> ezt írta (időpont: 2025. márc. 3., H, 10:15):",
    "hu, Thunderbird": "2025. 03. 03. 10:15 keltezéssel, Quill írta:",
    "hu, Outlook": "03/03/2025 10:15 időpontban Quill (letter@news.example) ezt írta:",
    "ro, Thunderbird": "În 3.03.2025 10:15, Quill a scris:",
    "ro, Outlook": "Quill <letter@news.example> a scris la 03/03/2025 10:15:",
    "ro": "Pe lun., 3 mar. 2025 la 10:15, Quill <letter@news.example> a scris:",
    "hr": "Dana 3. ožu 2025. u 10:15, Quill <letter@news.example> je napisao:",
    "hr, Thunderbird": "Dana 03.03.2025. u 10:15, Quill je napisao/la:",
    "tr, Apple": "3 Mar 2025 tarihinde saat 10:15 itibarıyla Quill <letter@news.example> şunları yazdı:",
    "tr, Thunderbird": "3.03.2025 10:15 tarihinde Quill yazdı:",
    "tr": "Quill <letter@news.example>, 3 Mar 2025 Pzt, 10:15 tarihinde şunu yazdı:",
    "ru": "пн, 3 мар. 2025 г. в 10:15, Quill <letter@news.example>:",
    "ru, wrapped": '3 мар. 2025 г. 10:15 пользователь "Quill" <\nletter@news.example> написал:',
    "ru, Apple": "3 марта 2025 г., в 10:15, Quill <letter@news.example> написал(а):",
    "ru, Thunderbird": "03.03.2025 10:15, Quill пишет:",
    "uk, Apple": "3 бер. 2025 р. о 10:15 Quill <letter@news.example> написав(-ла):",
    "bg": "На пн, 3.03.2025 г. в 10:15 Quill <letter@news.example> написа:",
    "sl": "V V pon., 3. mar. 2025 ob 10:15 je oseba Quill <letter@news.example> napisala:",
    "lt": "2025-03-03, pr, 10:15 Quill <letter@news.example> rašė:",
    "et": "Kontakt Quill (<letter@news.example>) kirjutas kuupäeval E, 3. märts 2025 kell 10:15:",
    "vi": "Vào Th 2, 3 thg 3, 2025 vào lúc 10:15 Quill <letter@news.example> đã viết:",
    "id": "Pada Sen, 3 Mar 2025 pukul 10.15 Quill <letter@news.example> menulis:",
    "uk": "пн, 3 бер. 2025 р. о 10:15 Quill <letter@news.example> пише:",
    "el": "Στις Δευ 3 Μαρ 2025 στις 10:15, ο χρήστης Quill <letter@news.example> έγραψε:",
    "ja": "2025年3月3日(月) 10:15 Quill <letter@news.example>:",
    "ja, written": "Quill <letter@news.example> さんは書きました:",
    "zh": "Quill <letter@news.example> 于2025年3月3日周一 10:15写道：",
    "zh, Apple": "在 2025年3月3日，上午10:15，Quill <letter@news.example> 写道：",
    "ko": "2025년 3월 3일 (월) 오전 10:15, Quill <letter@news.example>님이 작성:",
    "ar": "في ٣ مارس ٢٠٢٥، كتب Quill <letter@news.example>:",
    "he": "בתאריך יום ב׳, 3 במרץ 2025 ב-10:15 מאת Quill <letter@news.example>:",
}


@pytest.mark.parametrize("line", ATTRIBUTIONS.values(), ids=ATTRIBUTIONS)
@pytest.mark.parametrize("below", [QUOTE, COPY, "\n" + QUOTE, "\n" + COPY], ids=["marked", "bare", "gap", "gap, bare"])
def test_attribution_and_what_it_heads_are_not_own(line: str, below: str) -> None:
    assert own(f"No more letters please.\n\n{line}\n{below}") == "No more letters please."


@pytest.mark.parametrize("line", ATTRIBUTIONS.values(), ids=ATTRIBUTIONS)
def test_answer_below_the_quotation_is_own(line: str) -> None:
    assert own(f"{line}\n{QUOTE}\nNo more letters please.") == "No more letters please."


def test_attribution_without_verb_or_date_above_marked_lines() -> None:
    assert own(f"Stop.\n\n2025/3/3 Quill via Letters <letter@news.example>\n\n{QUOTE}") == "Stop."
    assert own(f"Stop.\n\n2025-03-03 10:15 GMT+02:00 Quill <\nletter@news.example>:\n\n{QUOTE}") == "Stop."
    assert own(f"Stop.\n\nAnn Example wrote:\n{QUOTE}") == "Stop."
    assert own(f"Please remove me, as my colleague wrote:\n{QUOTE}") == "Please remove me, as my colleague wrote:"


@pytest.mark.parametrize(
    "text",
    [
        "On 3 March 2025 I wrote:\nplease take me off your list.",
        "Am 3.3.2025 um 10:15 habe ich geschrieben:\nnehmen Sie mich vom Verteiler.",
        "On Monday I asked you to stop.\nI wrote to letter@news.example in 2024 too.",
        "My colleague wrote in 2024 to you about the following mails:\nstop them.",
        "On this day\n\nI wrote something\n\nwhich was very interesting.",
        "On 3 March 2025 I wrote to you <letter@news.example> the following:\nplease remove me.",
        "Am 3. März 2025 um 10:15 Uhr schrieb ich an <letter@news.example>:\nbitte abmelden.",
        "As my colleague wrote:\nwe do not want your mail.",
    ],
)
def test_sentences_that_look_like_attributions_are_own(text: str) -> None:
    assert own(text) == " ".join(text.split())


# ------------------------------------------------------------------ copies without marks

HEADERS = {
    "en": "From: Q <l@news.example>\nSent: Monday, March 3, 2025 10:15 AM\nTo: Ann <a@b.example>\nSubject: The Letter",
    "de": "Von: Q <l@news.example>\nGesendet: Montag, 3. März 2025 10:15\nAn: Ann <a@b.example>\nBetreff: The Letter",
    "fr": "De : Q <l@news.example>\nEnvoyé : lundi 3 mars 2025 10:15\nÀ : Ann <a@b.example>\nObjet : The Letter",
    "es": "De: Q <l@news.example>\nEnviado: lunes, 3 de marzo de 2025 10:15\nPara: Ann <a@b.example>\nAsunto: The Letter",
    "it": "Da: Q <l@news.example>\nInviato: lunedì 3 marzo 2025 10:15\nA: Ann <a@b.example>\nOggetto: The Letter",
    "nl": "Van: Q <l@news.example>\nVerzonden: maandag 3 maart 2025 10:15\nAan: Ann <a@b.example>\nOnderwerp: The Letter",
    "pt": "De: Q <l@news.example>\nEnviado: 3 de março de 2025 10:15\nPara: Ann <a@b.example>\nAssunto: The Letter",
    "sv": "Från: Q <l@news.example>\nSkickat: den 3 mars 2025 10:15\nTill: Ann <a@b.example>\nÄmne: The Letter",
    "da": "Fra: Q <l@news.example>\nSendt: 3. marts 2025 10:15\nTil: Ann <a@b.example>\nEmne: The Letter",
    "fi": "Lähettäjä: Q <l@news.example>\nLähetetty: 3. maaliskuuta 2025 10:15\nVastaanottaja: Ann <a@b.example>\nAihe: The Letter",
    "pl": "Od: Q <l@news.example>\nWysłano: 3 marca 2025 10:15\nDo: Ann <a@b.example>\nTemat: The Letter",
    "cs": "Od: Q <l@news.example>\nOdesláno: 3. března 2025 10:15\nKomu: Ann <a@b.example>\nPředmět: The Letter",
    "hu": "Feladó: Q <l@news.example>\nElküldve: 2025. március 3. 10:15\nCímzett: Ann <a@b.example>\nTárgy: The Letter",
    "ro": "De la: Q <l@news.example>\nTrimis: 3 martie 2025 10:15\nCătre: Ann <a@b.example>\nSubiect: The Letter",
    "hr": "Šalje: Q <l@news.example>\nPoslano: 3. ožujka 2025. 10:15\nPrima: Ann <a@b.example>\nPredmet: The Letter",
    "tr": "Kimden: Q <l@news.example>\nGönderildi: 3 Mart 2025 10:15\nKime: Ann <a@b.example>\nKonu: The Letter",
    "ru": "От: Q <l@news.example>\nОтправлено: 3 марта 2025 г. 10:15\nКому: Ann <a@b.example>\nТема: The Letter",
    "uk": "Від: Q <l@news.example>\nНадіслано: 3 березня 2025 р. 10:15\nКому: Ann <a@b.example>\nТема: The Letter",
    "el": "Από: Q <l@news.example>\nΣτάλθηκε: 3 Μαρτίου 2025 10:15\nΠρος: Ann <a@b.example>\nΘέμα: The Letter",
    "ja": "差出人: Q <l@news.example>\n送信日時: 2025年3月3日 10:15\n宛先: Ann <a@b.example>\n件名: The Letter",
    "zh": "发件人: Q <l@news.example>\n发送时间: 2025年3月3日 10:15\n收件人: Ann <a@b.example>\n主题: The Letter",
    "ko": "보낸 사람: Q <l@news.example>\n보낸 날짜: 2025년 3월 3일 10:15\n받는 사람: Ann <a@b.example>\n제목: The Letter",
}


@pytest.mark.parametrize("block", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("line", ["", "________________________________\n", "-----Original Message-----\n"])
def test_header_block_heads_a_copy(block: str, line: str) -> None:
    found = quoting.own_words(f"Stop it.\n\n{line}{block}\n\n{COPY}")
    assert found.text.split() == ["Stop", "it."]
    assert [(c.author, c.to, c.subject) for c in found.copies] == [
        ("Q <l@news.example>", "Ann <a@b.example>", "The Letter")
    ]


def test_header_block_in_bold_and_folded() -> None:
    block = "*From:* Q <l@news.example>\n*Sent:* Monday\n*To:* Ann <a@b.example>;\n   Ben <b@b.example>\n*Subject:* The Letter"
    found = quoting.own_words(f"Stop it.\n\n{block}\n\n{COPY}")
    assert found.text.strip() == "Stop it."
    assert "b@b.example" in found.copies[0].to


@pytest.mark.parametrize(
    "line",
    [
        "-----Original Message-----", "-----Ursprüngliche Nachricht-----", "-----Message d'origine-----", "-----Mensaje original-----",
        "-----Messaggio originale-----", "-----Oorspronkelijk bericht-----", "-----Mensagem original-----", "-----Ursprungligt meddelande-----",
        "-----Oprindelig meddelelse-----", "-----Alkuperäinen viesti-----", "-----Původní zpráva-----", "-----Eredeti üzenet-----",
        "-----Исходное сообщение-----", "-----Orijinal Mesaj-----", "------------------ 原始邮件 ------------------", "-------- Original Message --------",
        "----- Original Message ----- ", "---------- Forwarded message ---------", "-------- Weitergeleitete Nachricht --------", "---------- Message transféré ---------",
        "---------- Mensaje reenviado ---------", "-------- Messaggio Inoltrato --------", "-------- Proslijeđena poruka --------", "---------- メッセージを転送 ---------",
        "Begin forwarded message:", "Anfang der weitergeleiteten Nachricht:", "Début du message réexpédié :", "Inizio messaggio inoltrato:",
        "Začiatok preposlanej správy:", "Välitetty viesti alkaa:", "Forwarded message:",
    ],
)  # fmt: skip
def test_separators_head_a_copy(line: str) -> None:
    assert own(f"Stop it.\n\n{line}\n\n{COPY}") == "Stop it."


def test_separator_in_an_unknown_language_is_known_by_what_follows() -> None:
    head = "-------- Ubaridishwa tena --------\nSubject: The Letter\nFrom: Q <l@news.example>\n"
    assert own(f"Stop it.\n\n{head}\n{COPY}") == "Stop it."
    assert (
        own("My list:\n---- first things ----\nplease stop the mails")
        == "My list: ---- first things ---- please stop the mails"
    )


def test_all_fields_on_one_line_without_dashes() -> None:
    line = "From: Q <l@news.example> Sent: Monday, 3 March 2025 10:15 To: Ann <a@b.example> Subject: The Letter"
    assert own(f"Stop it.\n\n{line}\n{COPY}") == "Stop it."


def test_all_fields_on_one_line() -> None:
    line = '   ----- Forwarded Message ----- From: Q <l@news.example>To: "a@b.example" <a@b.example>Sent: Monday, 3 March 2025, 10:15 GMT+1Subject: The Letter'
    found = quoting.own_words(f"Stop it.\n\n{line}\n{COPY}")
    assert found.text.strip() == "Stop it."
    copy = found.copies[0]
    assert (copy.author, copy.to, copy.subject, copy.forwarded) == (
        "Q <l@news.example>", '"a@b.example" <a@b.example>', "The Letter", True,
    )  # fmt: skip


ONE_LINE = [
    "Doorgestuurd bericht ----- Van: {}Aan: {}Cc: {}Verzonden: dinsdag 2 november 2021 09:26:50 CETOnderwerp: The Letter",
    "Przekazana wiadomość ----- Od: {}Do: {}DW: {}Wysłano: wtorek, 2 listopada 2021 09:26:50 CETTemat: The Letter",
    "Пересылаемое сообщение ----- От: {}Кому: {}Копия: {}Отправлено: вторник, 2 ноября 2021 г., 09:26:50 GMT+1Тема: The Letter",
    "Vidarebefordrat meddelande ----- Från: {}Till: {}Kopia: {}Skickat: tisdag 2 november 2021 09:26:50 CETÄmne: The Letter",
    "Továbbított üzenet ----- Feladó: {}Címzett: {}Másolat: {}Elküldve: 2021. november 2., kedd 09:26:50 CETTárgy: The Letter",
    "Välitetty viesti ----- Lähettäjä: {}Vastaanottaja: {}Kopio: {}Lähetetty: tiistai 2. marraskuuta 2021 klo 9.26.50 UTC+1Aihe: The Letter",
    "Переслане повідомлення ----- Від: {}Кому: {}Копія: {}Надіслано: вівторок, 2 листопада 2021 р. 09:26:50 GMT+1Тема: The Letter",
]


@pytest.mark.parametrize("line", ONE_LINE, ids=[line.split(" ---")[0] for line in ONE_LINE])
def test_one_line_blocks_in_other_languages(line: str) -> None:
    line = line.format("Q <l@news.example>", "Ann <a@b.example>", "Ben <b@b.example>")
    found = quoting.own_words(f"Stop it.\n\n   ----- {line}\n {COPY}")
    assert found.text.strip() == "Stop it."
    assert (found.copies[0].author, found.copies[0].to) == ("Q <l@news.example>", "Ann <a@b.example>")
    assert found.copies[0].forwarded


def test_original_message_line_above_marked_lines_lets_answers_through() -> None:
    assert own(f"-----Original Message-----\n{QUOTE}\nStop it.") == "Stop it."


def test_few_fields_are_no_copy() -> None:
    assert own("Date: today\nplease remove me") == "Date: today please remove me"
    assert own("To: all of you\nstop it") == "To: all of you stop it"


# ------------------------------------------------------------------ marks, answers between and below


def test_answers_between_quoted_lines() -> None:
    found = quoting.own_words(
        "On Mon, Mar 3, 2025 at 10:15 AM Q <l@news.example> wrote:\n> Do you want the letter?\nNo.\n> Shall we remove you?\nYes, do that.\n> Bye"
    )
    assert found.text.split() == ["No.", "Yes,", "do", "that."]
    assert [(a.strip("> "), b) for a, b in found.answers] == [
        ("Do you want the letter?", "No."),
        ("Shall we remove you?", "Yes, do that."),
    ]


@pytest.mark.parametrize("mark", ["> ", ">", ">> ", "| ", "AB> ", " > "])
def test_marks(mark: str) -> None:
    assert own(f"{mark}Do you want the letter?\n{mark}\n{mark}Unsubscribe\nNo.") == "No."


def test_bar_alone_is_a_mark_too() -> None:
    assert own("Stop.\n\n| our letter\n|\n|\n| bye\n|") == "Stop."


def test_quotation_only() -> None:
    assert own(QUOTE) == ""


def test_answer_below_a_quotation_and_above_a_signature() -> None:
    assert (
        own(f"On 3 Mar 2025, at 10:15, Q <l@news.example> wrote:\n{QUOTE}\nStop it.\n-- \nAnn\nUnsubscribe Ltd")
        == "Stop it."
    )


# ------------------------------------------------------------------ signatures


@pytest.mark.parametrize("mark", ["-- ", "--", "—", "___", "***"])
def test_below_a_signature_mark(mark: str) -> None:
    assert own(f"Stop it.\n\n{mark}\nAnn Example\nUnsubscribe Consulting Ltd") == "Stop it."


def test_footer_of_a_mailing_list() -> None:
    line = "_" * 47
    footer = f"{line}\nFoo mailing list\nfoo@lists.example\nTo unsubscribe: https://lists.example/listinfo/foo"
    assert own(f"Stop it.\n\n{footer}") == "Stop it."
    assert own(f"Hello.\n{line}\nplease remove me") == f"Hello. {line} please remove me"


def test_names_at_the_end() -> None:
    assert own("Stop it.\n\nKind regards,\nAnn Example\nRemoval Ltd") == "Stop it. Kind regards,"
    assert own("Stop it.\n\nMit freundlichen Grüßen\nAnn Example") == "Stop it. Mit freundlichen Grüßen"
    assert own("Stop it.\n\nRegards,\n\ne.") == "Stop it. Regards,"
    assert own("Stop it.\n\nAnn Example\nRemoval Ltd", "Ann Example") == "Stop it."
    assert own("Thanks,\nplease remove me") == "Thanks, please remove me"
    assert own("Stop it.\nThanks\nand do remove me") == "Stop it. Thanks and do remove me"


def test_postscript_below_a_signature_is_own() -> None:
    for ps in ("P.S. Stop the letter.", "PS: Stop the letter.", "p.s.: stop the letter"):
        assert own(f"Hello, see below.\n\nRegards,\nAnn Example\n\n{ps}") == f"Hello, see below. Regards, {ps}"
        assert own(f"Hello, see below.\n-- \nAnn Example\n\n{ps}") == f"Hello, see below. {ps}"


@pytest.mark.parametrize(
    "line",
    [
        "Sent from my iPhone", "Sent from Windows Mail", "Sent from Mailbox for iPad", "Sent via mobile", "(sent from a phone)", "<<sent by galaxy>>",
        "Sent from Outlook Mobile<https://foo.example>", "Sent from [mail](https://go.example/x?LinkId=5) for windows 10", "From My Iphone 6", "Get Outlook for iOS",
        "Get [Outlook for Android](https://aka.example/x)", "Von meinem iPhone gesendet", "Gesendet von Mail für Windows",
        "Diese Nachricht wurde von meinem Android-Gerät mit K-9 Mail gesendet.", "Envoyé de mon iPhone", "Envoyé depuis mon téléphone",
        "Enviado desde mi iPhone", "Enviado do meu iPhone", "Inviato da iPhone", "Verstuurd vanaf mijn iPhone", "Verzonden met BlackBerry Work", "Skickat från min iPhone",
        "Sendt fra min iPad", "Lähetetty iPhonesta", "Wysłane z iPhone'a", "Odesláno z iPhonu", "iPhone-omról küldve", "Trimis de pe iPhone-ul meu", "iPhone'umdan gönderildi",
        "Отправлено с iPhone", "Надіслано з iPhone", "Στάλθηκε από το iPhone μου", "iPhoneから送信", "发自我的 iPhone", "從我的 iPhone 傳送", "나의 iPhone에서 보냄", "נשלח מה-iPhone שלי",
    ],
)  # fmt: skip
def test_mobile_signatures(line: str) -> None:
    assert own(f"Stop it.\n\n{line}\n") == "Stop it."
    assert own(f"Hello.\n{line}\n\nP.S. Stop it.") == "Hello. P.S. Stop it."


@pytest.mark.parametrize(
    "text",
    [
        "This email was sent from way too many lists, stop it.",
        "Unsubscribe from mobile offers",
        "Remove my iPhone from your list",
        "No quiero recibir la publicidad\nenviada de su empresa a mi correo.",
        "Please stop all the mails\nsent from your several servers to me.",
    ],
)
def test_sentences_that_look_like_mobile_signatures_are_own(text: str) -> None:
    assert own(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "line",
    [
        "CONFIDENTIALITY NOTICE: unsubscribe is a word in here.",
        "This email and any attachments are confidential and intended for the addressee. Unsubscribe.",
        "If you are not the intended recipient, remove this mail.",
        "Diese E-Mail enthält vertrauliche Informationen.",
        "Ce message est confidentiel et destiné à son seul destinataire.",
        "Este mensaje es confidencial y se dirige exclusivamente a su destinatario.",
        "Questo messaggio è riservato.",
        "Esta mensagem é confidencial.",
        "Dit e-mailbericht is vertrouwelijk.",
        "Detta meddelande är konfidentiellt.",
        "Denne e-mail er fortrolig.",
        "Tämä viesti on luottamuksellinen.",
        "Ta wiadomość jest poufna.",
        "Tato zpráva je důvěrná.",
        "Данное сообщение содержит конфиденциальную информацию.",
        "本邮件包含保密信息。",
    ],
)
def test_disclaimers(line: str) -> None:
    assert own(f"Stop it.\n\n{line}\nIt goes on: unsubscribe, remove.") == "Stop it."


@pytest.mark.parametrize(
    "line",
    [
        "Die in dieser E-Mail beworbenen Produkte will ich nicht.",
        "De informatie in dit soort mails wil ik niet.",
        "This email is not wanted, remove me.",
    ],
)
def test_sentences_that_look_like_disclaimers_are_own(line: str) -> None:
    assert own(f"Hello.\n{line}\nStop it.") == f"Hello. {line} Stop it."


def test_answer_below_a_quotation_that_ends_in_a_disclaimer() -> None:
    assert own("> Hello\n> This email is confidential and intended for you.\n\nStop it.") == "Stop it."


# ------------------------------------------------------------------ tricks and size


def test_invisible_characters_and_full_width_letters() -> None:
    assert own("Un\u200bsub\u00adscri\u2060be\ufeff me") == "Unsubscribe me"
    assert own("ＵＮＳＵＢＳＣＲＩＢＥ　me") == "UNSUBSCRIBE me"
    assert own(f"Stop.\n\n\ufeffOn 3 Mar 2025, at 10:15, Q <l@news.example> wro\u200bte:\n{COPY}") == "Stop."
    assert own("Stop.\n\n\u200b> quoted: remove me") == "Stop."


def test_line_ends() -> None:
    assert own("Stop\r\nit\rnow\u2028please\n") == "Stop it now please"


HOSTILE = {
    "attributions": "On 1 Jan 2025 at 10:15 a <a@b.example>\n",
    "open brackets": "On 1 Jan 2025 <\n",
    "brackets": "On 1 <<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<\n",
    "fields": "From: a\n",
    "fields of all kinds": "To: a\nDate: b\nSubject: c\n",
    "dashes": "---- a b c ---- \n",
    "dashes without end": "-----" * 60 + " a\n",
    "fields on one line": "---- a b ---- " + "From: a" * 100 + "\n",
    "underscores": "_" * 60 + "\n",
    "closings": "Thanks\n",
    "marks": "> a\nb\n",
    "times": "10:15 10:15 10:15 wrote wrote\n",
    "one line": "On 1 wrote ",
    "blank": " \n",
    "mobile": "Sent from my iPhone\n",
    "disclaimer": "This email " + "is " * 40 + "\n",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_anything_takes_bounded_time(piece: str) -> None:
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    start = time.thread_time()
    found = quoting.own_words(text, "Ann Example")
    assert time.thread_time() - start < 5
    assert len(found.text) <= quoting.WORDS_LIMIT
