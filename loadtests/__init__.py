"""Load tests: what the sidecar does under load, and what it costs. See README.md here."""
