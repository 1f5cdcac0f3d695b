"""The stage that uses a trained model: evaluates it, scores text with it, generates text with it.

Every command loads a model folder or a registry address into a `packlm.engine.Engine`; under torchrun the ranks share the work.

evaluate    1. `evaluate/stage.py` skips the splits that are complete, `evaluate/command.py` measures any text or dataset;
            2. `packlm.evaluation.measure` gives loss, perplexity and bits per byte, by document, sentence length and token frequency;
            3. `evaluate/page.py` and `score/heat_map.py` write the report as a page with a figure, and a heat map of surprisal;
            4. `registry/register.py` registers the model in MLflow with its code (`registry/mlflow_model.py`), and `registry/champion.py`
               compares it with the champion on the validation split, and moves the alias if it is better.
score       1. `score/sentence_files.py` reads the records of text, tables and JSON (`records.py`, as `pairs` and `generate` do), and suites
               (`score/syntaxgym.py`); one with an error does not stop the others;
            2. `packlm.scoring` gives log P of each sentence, surprisal and entropy of its words and tokens;
            3. `score/files.py` writes TSV or JSONL, in order, whatever the number of ranks.
            `pairs/` compares log P of minimal pairs in the same way.
rescore     1. `rescore/formats/` reads n-best lists of a recognizer (a file for each format);
            2. `rescore/rescore.py` scores them, `rescore/tuning.py` finds the weights with the fewest word errors;
            3. `rescore/command.py` writes the lists in their new order, and word error rates before and after.
generate    1. `generate/prompts.py` reads prompts, with settings of their own if they have any;
            2. `generate/batch_job.py` groups them into batches for `packlm.generation`, and resumes a killed job from its `journal.py`;
            3. `generate/record_files.py` writes JSONL or Parquet, `generate/summary.py` adds up statistics.
"""
