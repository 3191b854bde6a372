"""What the official OpenAI SDK makes of broken answers. One script for three majors, which knows of no sidecar.

It reads a list of [model, stream, retries] from its arguments and prints a line for each: the exception's class, status
and code (null without one), and the words that were said.
"""

import json
import sys
from typing import Any

import openai
from openai import OpenAI

MESSAGES: Any = [{"role": "user", "content": "one two"}]


def ask(client: OpenAI, model: str, *, stream: bool) -> dict[str, Any]:
    """Ask once, as an app does."""
    said: list[str] = []
    try:
        if stream:
            for chunk in client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
                said += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        else:
            said.append(client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content or "")
    except Exception as error:
        status, code = getattr(error, "status_code", None), getattr(error, "code", None)
        return {"error": type(error).__name__, "status": status, "code": code, "said": "".join(said)}
    return {"error": None, "status": None, "code": None, "said": "".join(said)}


def main() -> None:
    """Ask for everything, in turn."""
    print(json.dumps({"version": openai.__version__}), flush=True)
    with OpenAI() as client:
        for model, stream, retries in json.loads(sys.argv[1]):
            print(json.dumps(ask(client.with_options(max_retries=retries), model, stream=stream)), flush=True)


if __name__ == "__main__":
    main()
