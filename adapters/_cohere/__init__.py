"""The parts of the Cohere language; `adapters.cohere` puts them together."""
