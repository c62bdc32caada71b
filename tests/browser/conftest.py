"""One Chromium for all tests of a worker, and doors with something to see behind them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.stage import play, vitals
from tests.browser.surfing import Surfer
from tests.ledgers import books
from tests.web.support import Door, door, whole

# Where `make pictures` wants the pictures that stand in docs/.
PICTURES = os.environ.get("OPTOUTD_PICTURES", "")


@pytest.fixture(scope="module")  # while it lives, an event loop runs in this thread: no test of another module may
def chromium() -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        # root may not use the sandbox; /dev/shm is small in a container
        launched = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door with the operators' rooms, before a ledger with a story."""
    it = books(tmp_path_factory.mktemp("browser") / "ledger")
    play(it)
    with door(it, whole(it, vitals=lambda: vitals(datetime.now(UTC)))) as opened:
        yield opened
    it.close()


@pytest.fixture
def surfer(chromium: Browser, web: Door, tmp_path: Path) -> Iterator[Surfer]:
    """Somebody with a browser, who must find no fault with what comes back."""
    somebody = Surfer(chromium, web, Path(PICTURES) if PICTURES else tmp_path)
    yield somebody
    somebody.leave()
