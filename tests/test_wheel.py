"""What is installed is what stands in daemon/ and storage/, and nothing else."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("daemon", "storage")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77: make setup")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in (*ROOMS, "tests", "training"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "corpus"))
    (source / "site.key").write_text("00" * 32)
    (source / "optoutd.toml").write_text("[house]")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        source / "out",
        source,
    ]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (source / "out").glob("*.whl")
    return zipfile.ZipFile(made)


def test_the_wheel_has_all_that_the_program_reads_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    there = [
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sorted(names) == sorted(str(path.relative_to(ROOT)) for path in there)
    for kind in (".html", ".css", ".toml", ".mako", ".xz", "py.typed"):
        assert any(name.endswith(kind) for name in names), kind


def test_its_metadata_has_the_licence_and_one_command(wheel: zipfile.ZipFile) -> None:
    about = {
        name.partition(".dist-info/")[2]: wheel.read(name).decode()
        for name in wheel.namelist()
        if ".dist-info/" in name
    }
    assert set(about) == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    assert about["entry_points.txt"].split() == ["[console_scripts]", "optoutd", "=", "daemon.__main__:main"]
    assert about["top_level.txt"].split() == sorted(ROOMS)
    assert "License-Expression: Apache-2.0" in about["METADATA"]
