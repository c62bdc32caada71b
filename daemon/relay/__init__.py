"""The SMTP door: a relay that asks before every recipient and once more before the dot."""
