"""The parts of the OpenAI language: what is read of an answer, and what is repaired of it."""
