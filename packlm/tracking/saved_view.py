"""A saved view of MLflow's page of runs: pipelines without their stages, the best first, with the columns by which trainings are compared.

By default that page has no column with a number. MLflow keeps views as tags of the experiment, and lists them under "Views"; a version
that does not know the format ignores the tag.
"""

import time

from packlm.base import json_text
from packlm.tracking import metric_names
from packlm.tracking.run_record import RUN_TAG

NAME = "trainings"
TAG = f"mlflow.sharedViewState.{NAME}"
METRICS = (metric_names.BEST_PERPLEXITY, metric_names.PARAMETERS, metric_names.TOKENS, metric_names.SECONDS)
SETTINGS = ("model.cell", "model.layers", "model.hidden", "train.segments", "train.lr")


def tags() -> dict[str, str]:
    """The tag of a new experiment that holds the view."""
    now = int(time.time() * 1000)
    state = {
        "searchFilter": f"tags.`{RUN_TAG}` != ''",
        "orderByKey": f"metrics.`{metric_names.BEST_PERPLEXITY}`",
        "orderByAsc": True,
        "selectedColumns": [*(f"metrics.`{name}`" for name in METRICS), *(f"params.`{name}`" for name in SETTINGS)],
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunSections": [{"uuid": name, "name": name, "display": True, "isGenerated": True} for name in metric_names.SECTIONS],
        "isAccordionReordered": True,  # otherwise the sections are sorted by name
        "compareRunCharts": [],  # none of our own: MLflow adds one for each metric, to the section of its name
    }
    return {TAG: json_text.dumps({"name": NAME, "createdAt": now, "updatedAt": now, "state": json_text.dumps(state)})}
