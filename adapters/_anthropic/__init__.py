"""The parts of the Anthropic language; `adapters.anthropic` puts them together."""
