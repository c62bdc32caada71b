"""Field names in the header block of a quoted copy, in the languages of the mail programs that write one."""

# ruff: noqa: E501  (the names are data)

from __future__ import annotations

from typing import Final

_FROM: Final = (
    "from von de da van från fra od lähettäjä от від kimden 差出人 送信元 发件人 寄件者 寄件人 보낸사람 보낸 사람 feladó expéditeur "
    "remitente mittente absender afzender"
    " avsändare afsender nadawca odesílatel gönderen şuradan de la saatja pošiljatelj من מאת"
).split()
_LABELS: Final = {
    "from": frozenset(_FROM) | {"보낸 사람", "de la"},
    "to": frozenset(
        "to an à a para aan till til do komu pro vastaanottaja kime кому до alıcı 宛先 收件人 받는사람 címzett destinataire "
        "destinatario empfänger către catre za prejemnik إلى אל"
        " saaja modtager mottaker"
        "".split()
    )
    | {"받는 사람"},
    "subject": frozenset(
        "subject betreff objet asunto oggetto onderwerp ämne emne temat předmět předmet aihe тема konu 件名 主题 主旨 제목 "
        "tárgy assunto subiect predmet teema الموضوع נושא předmětem"
        "".split()
    ),
    "date": frozenset(
        "sent date gesendet datum envoyé enviado inviato verzonden skickat sendt wysłano data wyslano odesláno "
        "lähetetty отправлено дата надіслано gönderildi tarih 送信日時 日付 发送时间 日期"
        " 보낸날짜 elküldve dátum fecha enviada enviat trimis poslano päivämäärä fecha odoslané kuupäev saadetud التاريخ תאריך dato gönderilme".split()
    )
    | {"보낸 날짜", "gönderme tarihi", "gönderilme tarihi", "дата отправления"},
    "cc": frozenset(
        "cc kopie copie copia kopia bcc reply-to antwort-an priority importance attachments kopi kopio копия копія másolat".split()
    ),
}
LABEL_OF: Final = {name: kind for kind, names in _LABELS.items() for name in names}
