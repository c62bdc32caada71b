"""The fictional house of the corpus, and where the corpora are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.config import House, MailingList

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def house() -> House:
    """QuillPDF, as tests/corpus describes it."""
    return House(
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
                sender="letter@news.quillpdf.example",
            ),
            MailingList(
                id="product-updates",
                title="Product updates",
                names=("release notes", "update notices"),
                sender="notes@news.quillpdf.example",
            ),
            MailingList(
                id="offers",
                title="Quill Offers",
                names=("Quill Offers", "offers", "discounts", "promotions"),
                sender="offers@news.quillpdf.example",
            ),
            MailingList(
                id="webinars",
                title="Quill Academy",
                names=("Quill Academy", "webinar invitations"),
                sender="academy@news.quillpdf.example",
            ),
            MailingList(
                id="partners",
                title="Reseller Bulletin",
                names=("Reseller Bulletin",),
                sender="partners@news.quillpdf.example",
            ),
        ),
    )


@pytest.fixture(scope="session")
def third_party() -> Path:
    """The openly licensed collections beside the checkout; the tests that need them are skipped without."""
    root = Path(os.environ.get("OPTOUTD_CORPUS", HERE.parents[2] / "shared" / "corpus")) / "third-party"
    if not root.is_dir():
        pytest.skip("no third-party corpus")
    return root
