"""Decoding strategies, a file each: the value of `generate.strategy` is the name of a module here.

A strategy is a function `generate(batch: PromptBatch) -> list[list[Generation]]`: for each prompt its generations, best first. To add one,
write its module, and add its name, its settings and its number of rows to `packlm.config.generate`.
"""
