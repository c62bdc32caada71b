"""Field names in the header block of a quoted copy, in the languages of the mail programs that write one."""

from __future__ import annotations

from typing import Final


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split("|"))


_LABELS: Final = {
    "from": _names(
        "from|von|de|da|van|från|fra|frá|od|lähettäjä|от|від|від кого|от кого|отправитель|відправник"
        "|kimden|gönderen|差出人|送信元|送信者|发件人|发信人|寄件者|寄件人|發件人"
        "|보낸사람|보낸 사람|발신|feladó|küldő|expéditeur|remitente|remetente|mittente|absender|afzender"
        "|avsändare|afsender|avsender|nadawca|odesílatel|odosielateľ"
        "|de la|expeditor|saatja|kellelt|pošiljatelj|šalje|pošiljalac|од|шаље|от|подател|nuo"
        "|siuntėjas|sūtītājs|από|de part de|từ|dari|จาก|से|מאת|من|المرسل|از|sender"
    ),
    "to": _names(
        "to|an|à|a|para|aan|till|til|do|komu|pro|pre|vastaanottaja|kime|alıcı|кому|до|для|получатель"
        "|одержувач|宛先|送信先|收件人|收件者|받는사람|받는 사람|수신|címzett"
        "|destinataire|destinatario|destinatário|empfänger|către|catre|za|prejemnik|prima|primatelj"
        "|primalac|за|прима|получател|kam|gavėjas|saņēmējs|adresát|příjemce|odbiorca"
        "|adresat|ontvanger|mottagare|modtager|mottaker|saaja|kellele|προς|per a|đến|tới|kepada|ถึง"
        "|को|אל|إلى|الى|المستلم|به|recipient|recipients"
    ),
    "subject": _names(
        "subject|betreff|objet|asunto|oggetto|onderwerp|ämne|emne|efni|temat|tytuł|předmět|předmet"
        "|predmet|vec|aihe|тема|относно|предмет|konu|件名|主题|主旨|標題|主題|제목"
        "|tárgy|assunto|subiect|zadeva|naslov|наслов|teema|tema|temats|θέμα|assumpte|chủ đề|tiêu đề"
        "|perihal|subjek|judul|เรื่อง|विषय|الموضوع|נושא|موضوع"
    ),
    "date": _names(
        "sent|date|date sent|gesendet|gesendet am|datum|envoyé|envoyé le|date d'envoi|date d’envoi"
        "|enviado|enviado el|enviada|enviada em|enviado em|inviato|verzonden|skickat|datum|sendt"
        "|wysłano|data|dată|wyslano|odesláno|odoslané|lähetetty|päiväys|päivämäärä|отправлено|дата"
        "|дата отправления|дата отправки|надіслано|gönderildi|gönderilme tarihi|gönderme tarihi"
        "|gönderilen|gönderim tarihi|tarih|送信日時|日時|日付|日期|发送时间|发送日期|發送時間|傳送時間|寄件日期|时间|時間|보낸날짜|보낸 날짜|날짜"
        "|elküldve|dátum|küldve|fecha|fecha de envío|enviat"
        "|trimis|trimis la|poslano|poslato|poslané|послато|датум|изпратено|kuupäev|saadetud"
        "|saatmisaeg|išsiųsta|nosūtīts|datums|στάλθηκε|ημερομηνία|ngày|đã gửi|tanggal|dikirim|วันที่|ส่ง"
        "|दिनांक|dato|sendt den|التاريخ|تاريخ|تم الإرسال|أرسلت|תאריך|נשלח|تاریخ"
    ),
    "cc": _names(
        "cc|kopie|copie|copia|cópia|kopia|kópia|kopi|kopio|копия|копія|копие|копија|másolat"
        "|másolatot kap|dw|do wiadomości|bilgi|kopija|koopia|kk|κοιν|κοινοποίηση|抄送|副本|참조|עותק|نسخة|bcc"
        "|reply-to|antwort an|antwort-an|répondre à|responder a|rispondi a|priority|importance"
        "|wichtigkeit|attachments|anlagen|bijlagen|reply to"
    ),
}  # fmt: skip
LABEL_OF: Final = {name: kind for kind, names in _LABELS.items() for name in names if name}
