"""The HTTP door. So far its public part: one-click opt-out (RFC 8058), and a sign of life."""
