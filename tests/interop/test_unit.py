"""The drop-in that docs/deploy.md prints, beside the unit."""

from __future__ import annotations

import re
from pathlib import Path

from tests.interop.documents import filled
from tests.test_systemd_unit import UNIT, analyze, needs_analyze


@needs_analyze
def test_the_printed_drop_in_goes_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", UNIT.read_text()))
    more = tmp_path / f"{UNIT.name}.d"
    more.mkdir()
    (more / "override.conf").write_text(filled("unit/override.conf"))
    done = analyze("verify", unit)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)
    shown = analyze("security", "--offline=true", "--threshold=15", unit)
    assert shown.returncode == 0, shown.stdout
