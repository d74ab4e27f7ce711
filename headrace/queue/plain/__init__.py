"""What the Lua scripts say, said plainly: one module for each of the longer ones, under its name. Knows no Redis and no
lock.
"""
