"""What is checked less strictly of the recordings in OpenAI's language, or with another outcome, file by file and why.

Everything else in `test_contract` holds for each of them.
"""

from typing import Final

from proxy import errors

# Recordings that say nothing about chat completions.
UNUSABLE: Final = {
    "mistral/prism--ocr-response-1--bb4b3bdb.json": "an answer of Mistral's OCR endpoint, not a chat completion"
}
# Answers that OpenAI's types refuse to the letter; they are passed through as the provider sent them.
NOT_STRICT: Final = {
    "openai/ai--azure-model-router-1--688f0a8a.json": 'Azure\'s first chunk, "object": "", filed under OpenAI',
    "openrouter/prism--structured-with-missing-meta-1--290779c6.json": "edited by hand: id and model are taken out",
}
# Requests that the sidecar refuses itself, with the answer that was recorded.
REFUSED: Final = {
    "llamacpp/rig--malformed-request-field--f121e022.json": "invalid_type",
    "openai/ai-gateway--chat-no-messages--c4ed9ba0.json": "empty_array",
}
# Calls whose arguments are told as the provider said them, though `golden.json` reads more into them.
ARGUMENTS: Final = {
    "deepseek/rig--blocking-budget-20-empty-arguments-are-dropped-on-length--52a5d043.json": "cut off before the first",
    "groq/rig--parallel-tool-calls-single-turn-nonstreaming--16463722.json": 'the model wrote "null"',
}
CONTEXT: Final = errors.ContextLengthError
ERRORS: Final[dict[str, type[errors.UpstreamError]]] = {
    "deepseek/ruby-llm--chat-real-error-scenarios-deepseek-deepseek-chat-handles-context-lengt--cd90295a.json": CONTEXT,
    "groq/pydantic-ai--test-tool-use-failed-error--cc12924a.json": errors.UnavailableError,
    "groq/req-llm-old--groq-llama-guard-3-8b-token-limit--978b5c66.json": errors.NotFoundError,
    "groq/req-llm-old--groq-mistral-saba-24b-usage--3db1870f.json": errors.NotFoundError,
    "mistral/rig--blocking-error-carries-the-correlation-id--6fc8d0f0.json": errors.NotFoundError,
    "mistral/rig--streaming-error-carries-the-correlation-id--abf44b98.json": errors.NotFoundError,
    "ollama_cloud/ruby-llm--chat-real-error-scenarios-ollama-cloud-gpt-oss-120b-handles-context-le--940cb7f0.json": (
        CONTEXT
    ),
    "perplexity/ruby-llm--chat-real-error-scenarios-perplexity-sonar-handles-context-length-exce--49cc8b0a.json": (
        CONTEXT
    ),
}
# Answers of status 200 that are an error, or end in one.
BROKEN: Final[dict[str, type[errors.UpstreamError]]] = {
    "azure/openllmetry--test-prompt-content-filtering-with-events-with-content--bb41a69a.json": (
        errors.ContentFilterError
    ),
    "groq/pydantic-ai--test-tool-use-failed-error-streaming-with-text--05609382.json": errors.UnavailableError,
    "groq/req-llm-old--groq-meta-llama-llama-4-scout-17b-16e-instruct-object-streaming--a765c560.json": (
        errors.UnavailableError
    ),
    "openrouter/pydantic-ai--test-openrouter-stream-error--fa193150.json": errors.InvalidRequestError,
    "openrouter/req-llm-old--openrouter-meta-llama-llama-3-3-70b-instruct-free-object-streaming--03ffc57c.json": (
        errors.UnavailableError
    ),
}
# Of those, one whose error follows a finish reason; a client is told that, and no error.
LATE: Final = {"openrouter/pydantic-ai--test-openrouter-stream-error--fa193150.json": "length"}
