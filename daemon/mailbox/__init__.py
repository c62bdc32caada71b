"""The IMAP door: a thread per mailbox that reads, hands on, and files away what was honoured."""
