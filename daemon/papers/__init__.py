"""What is handed to people on paper: what we hold on somebody, what we can prove of one, and what was forgotten."""
