"""The names of metrics in MLflow, whose pages group charts by what precedes the last slash and sort metrics by name.

validation/loss, validation/perplexity     by step: the run of a training, and its parent, where trainings are compared
by_tokens/validation_loss, ...             the same against tokens instead of steps
train/loss, train/perplexity, train/lr, ...    by step: the run of a training
validation/best_perplexity, train/parameters, train/steps, train/tokens, train/seconds    final numbers of a training: the parent
evaluate/SPLIT/perplexity, ...             of the stage `evaluate`: its run and the parent. Not `validation/...`, which has steps.
preprocess/..., generate/..., champion/...    numbers of the other stages
"""

BEST_PERPLEXITY = "validation/best_perplexity"
PARAMETERS = "train/parameters"
EPOCH = "train/epoch"
STEPS = "train/steps"
TOKENS = "train/tokens"
SECONDS = "train/seconds"

SECTIONS = ("validation", "by_tokens", "train", "evaluate/validation")
"""The groups of a parent's charts in the order in which people look at them."""


def by_tokens(name: str) -> str:
    """The name of a metric against tokens: MLflow has one axis for each metric, the step."""
    return "by_tokens/" + name.replace("/", "_")


def is_validation(name: str) -> bool:
    """Whether a metric is measured at the validations of a training, which the parent shows too."""
    return name.startswith(("validation/", by_tokens("validation/")))


def of_stage(stage: str, name: str) -> str:
    """The name of a number that a stage measures once."""
    return f"{stage}/{name}"
