"""Stage 2: trains a language model on a dataset, on one process or many. What happens, in order:

 1. `cli` reads the configuration, what `train.init` decides of it, and the dataset's manifest; `stage` joins the ranks.
 2. `record` compares the training with the one that the run's folder holds: complete (nothing to do), to be started, to be resumed,
    or another one (refused; with `--rebuild` the training is made in `rebuild/`). Nothing is written before step 4.
 3. `trainer.Trainer` opens the data through `setup`: the plan of the batches (`batches/`: which segments each step reads, as a function
    of seed, epoch and step) and the validation split. It builds the model, from random weights or those of `train.init`, and around it
    `gradient_reduction` (parts of a batch, DDP), the optimizers, schedule and averaged weights of `optim/`.
 4. `Trainer.run` makes a warm-up pass and loads the latest undamaged checkpoint (`checkpoint`: tensors; `state`: everything else).
 5. Each `Trainer.update` is one optimizer step on one global batch: this rank's parts of it, forward and backward, the gradient summed over
    parts and ranks, clipped, checked, applied, and averaged into the weights to validate. `step` has its parts, sums and results.
 6. `progress/` writes metrics, log lines and samples, and passes them to MLflow.
 7. When a validation is due, a checkpoint is written first; then the split is measured, and the schedule, the averaging and the best step
    follow from the result. Older checkpoints are deleted.
 8. A signal stops all ranks after the same update, with a checkpoint: the same command resumes.
 9. After the last update `outcome` tells whether the training has helped, `export` writes the best weights as a model folder, and the
    summary; `record` marks the training as complete, and puts a rebuild in the place of the old training and its model.

`dry_run` goes as far as step 3 and describes what it finds.
"""
