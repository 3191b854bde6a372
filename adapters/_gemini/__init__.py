"""The parts of the Gemini language; `adapters.gemini` and `adapters.vertex` put them together."""
