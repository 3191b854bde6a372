"""What the hop costs, beside nginx: gateways one after the other on one core, everything else on another.

common.h, words.h, upstream.c    a fake provider        check.h, load.c    a load client that checks every answer
programs    builds the two and runs the second          watch              a process tree's CPU and memory
gateways    what stands between them                    scenarios          what is asked of it
trial       one scenario through one gateway            tables, targets    many trials as markdown
"""
