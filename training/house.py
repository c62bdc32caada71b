"""The fictional house that the training data and the test corpus write to."""

from __future__ import annotations

from typing import Final

from daemon.config import House, MailingList

NEWS: Final = "news.quillpdf.example"
HOUSE: Final = House(
    name="QuillPDF",
    domains=("quillpdf.example",),
    addresses=("support@quillpdf.example",),
    form_addresses=("forms@quillpdf.example",),
    authserv_id="mx1.quillpdf.example",
    lists=(
        MailingList(
            id="newsletter",
            title="The Quill Letter",
            names=("The Quill Letter", "Quill-Brief", "Lettre Quill", "Carta Quill"),
            sender=f"letter@{NEWS}",
        ),
        MailingList(
            id="product-updates",
            title="Product updates",
            names=("release notes", "update notices"),
            sender=f"notes@{NEWS}",
        ),
        MailingList(
            id="offers",
            title="Quill Offers",
            names=("Quill Offers", "offers", "discounts", "promotions"),
            sender=f"offers@{NEWS}",
        ),
        MailingList(
            id="webinars",
            title="Quill Academy",
            names=("Quill Academy", "webinar invitations"),
            sender=f"academy@{NEWS}",
        ),
        MailingList(id="partners", title="Reseller Bulletin", names=("Reseller Bulletin",), sender=f"partners@{NEWS}"),
    ),
)
