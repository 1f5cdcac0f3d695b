"""How MLflow opens and uses a model that was recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from packlm.base.errors import RequestError
from packlm.tracking import store


def declare_model(load: Callable[[Path, dict[str, Any]], Any], predict: Callable[[Any, Any, dict[str, Any]], Any]) -> None:
    """Called by the code file that goes with a recorded model: says how MLflow opens and uses it.

    Args:
        load: makes a model of our model folder and the `model_config` that MLflow was given.
        predict: answers (model, DataFrame of inputs, params); its `RequestError` becomes one that a server answers with status 400.
    """
    mlflow = store.mlflow()

    class Answers:  # a class apart: PythonModel warns of a `predict` without type hints, and with them MLflow would drop `params`
        def load_context(self, context: Any) -> None:
            self.model = load(Path(context.artifacts["model"]), dict(context.model_config or {}))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            try:
                return predict(self.model, model_input, params or {})
            except RequestError as error:
                raise mlflow.exceptions.MlflowException.invalid_parameter_value(str(error)) from None

    class Model(Answers, mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
        pass

    mlflow.models.set_model(Model())
