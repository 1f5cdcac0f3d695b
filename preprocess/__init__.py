"""Text in, dataset out: documents, sentences, tokenizer, ids, shards. Never imports torch."""
