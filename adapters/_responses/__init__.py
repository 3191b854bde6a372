"""The parts of the Responses language; `adapters.responses` puts them together."""
