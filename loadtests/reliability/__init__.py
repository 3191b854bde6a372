"""What must hold under load, outage, reload, kill and drain: one bounded script per figure, every answer checked.

`python -m loadtests.reliability` runs them. A request carries its own script for the upstream, and its nonce; the
upstream answers with that nonce in every event; the client compares the answer byte for byte.
"""
