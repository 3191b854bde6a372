"""llm-sidecar: the OpenAI chat-completions format in, many providers out, routed by policy files."""

__version__ = "0.1.0"
