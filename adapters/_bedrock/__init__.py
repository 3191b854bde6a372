"""The parts of the Bedrock Converse language; `adapters.bedrock` puts them together."""
