"""Hostile input, made by the thousand: `python -m tests.fuzz NAME` (docs/threats.md says what each door must hold)."""
