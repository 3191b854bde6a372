"""The conformance kit: any adapter, ours or a third party's, held to recorded answers and to the contract.

Needs OpenAI's SDK (extra `conform`), whose strict types judge what a client would get. Nothing else imports this.
"""
