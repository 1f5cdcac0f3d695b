"""`packlm new`: looks at a folder of text, and writes a recipe for it.

corpus_files -> text_field, structure, language, overlap -> findings -> sizes -> recipe
"""
