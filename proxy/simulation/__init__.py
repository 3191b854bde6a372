"""What policies would have done with traffic that was recorded: the live decision code, with a made-up world around it.

Nothing here decides: who is asked is the business of `proxy.optimizer` and `proxy.router`, what is learned from an
attempt that of `proxy.attempt`. Nothing here is imported but by the verb `simulate`.
"""
