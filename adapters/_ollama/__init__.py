"""The parts of the Ollama language; `adapters.ollama` puts them together."""
