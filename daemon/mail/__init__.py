"""What a message says: pure reading, bytes in and frozen dataclasses out. No I/O, no clock."""
