"""optoutd: reads the support mailbox, keeps the suppression list, and refuses marketing mail to those on it."""

__version__ = "0.1.0"
