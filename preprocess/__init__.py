"""Stage 1, preprocessing: makes a dataset of token ids from a corpus of documents. Never imports torch.

The walk of the data, in order; `build/builder.py` calls these steps, and `build/stage.py` is the entry point (`build`, `repair`):

 1. `build/scan.py` finds the sources, digests their bytes, and cuts them into parts of about 32 MB.
 2. `build/provenance.py` compares settings and sources with those of an existing dataset: up to date, or a list of what changed.
 3. `build/extract.py` reads the parts (`packlm.corpus`), cleans and splits them into documents, and writes these into extracted files
    (`build/extracted_file.py`); each document goes to a split.
 4. `build/duplicates.py` skips documents whose text occurs twice.
 5. `build/plan.py` divides the documents of each split into shards.
 6. `build/learn.py` trains the tokenizer on the training split, from counts of words, characters or pre-tokens (`build/vocabulary.py`);
    a pretrained tokenizer is copied.
 7. `build/shards.py` encodes the documents (`packlm.text`) and writes each shard in both views; `build/rows.py` cuts ids into rows.
 8. `build/assemble.py` sums up the shards, and writes the report (`report.py`) and the manifest (`packlm.dataset`); then the dataset
    is moved to its place.

Steps 3, 6 and 7 consist of tasks (`build/task.py`), which `executors/runner.py` runs in worker processes or on a cluster. What they write
is in a work folder (`build/work_folder.py`), from which an interrupted build resumes. Beside the build: `inspect_dataset.py` prints a
dataset, `push.py` uploads it, `record.py` records it in MLflow, and `cli.py` has the commands.
"""
