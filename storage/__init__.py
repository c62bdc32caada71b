"""What we remember: who must not be mailed, why, and a record that cannot change unseen."""
