"""From documents to ids: `sentences` finds the spans, `pretokens` splits them, `encoding_cache` looks their ids up, `overlong` splits long
sentences; `document_encoding` and `encoder` put these together. `tokenizers` makes tokenizers, `tokenizer` saves and loads them."""
