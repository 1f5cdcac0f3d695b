"""Attacks every stage with random faults and judges how it ends: `make torture`, or `python -m tests.torture --minutes 20`.

A trial prepares a fault (a kill, a damaged file, a malicious folder, a full disk), runs a command, and holds the outcome against that of
an undisturbed run. Each trial is a function of seed, part and number, so that the one that failed can be repeated alone.
"""
