"""A model as an ONNX graph, for ONNX Runtime.

    inputs     `ids` [batch, time] int64, `state_0`, `state_1`, ... of each layer [C, batch, S]: zeros before anything was read
    outputs    `log_probs` [batch, time, V]: ln P(the next id | all up to this one); `new_state_0`, ...: to read on from

The graph is one operator, Scan, over the time steps. Its body is the model's own time step (`Cell.project`, `Cell.step`) as torch's
exporter writes it, so every cell is exported alike.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from packlm.base import files
from packlm.base.errors import RequestError
from packlm.dataset import EOS
from packlm.model.cell import LayerWeights
from packlm.model.folder import card
from packlm.model.info import ModelInfo
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State

from .tokenizer_files import write_tokenizer

OPSET = 20


class TimeStep(nn.Module):
    """One time step of a model, of nothing but plain operators."""

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """ids [B], the state of each layer [C, B, S] -> log P(next id) [B, V], the states after."""
        layers = self.model.recurrence
        rows, finals = self.model.embedding(ids), []
        for number, (layer, state) in enumerate(zip(layers.layers, states, strict=True)):
            weights = LayerWeights(dict(layer.named_parameters()))
            outputs, final = layers.cell.step(weights, layers.cell.project(weights, rows), state)
            rows = outputs + layers.shortcuts[number](rows) if layers.shortcuts else outputs
            finals.append(final)
        return self.model.projection(rows).log_softmax(-1), *finals


def write(folder: Path, model: LanguageModel, info: ModelInfo, tokenizer: str, int8: bool) -> None:
    """Writes `model.onnx`, the tokenizer and how to use them into an empty folder.

    Args:
        tokenizer: the text of `tokenizer.json`.
        int8: whether ONNX Runtime quantizes the weights to 8 bits.

    Raises:
        RequestError: the packages that write ONNX are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise RequestError(f"--to onnx: {error.name} is not installed; pip install 'packlm[onnx]'") from None
    eos, path = write_tokenizer(folder, tokenizer), folder / "model.onnx"
    with _no_warnings():
        onnx.save(_scan(_step(model), model.zero_state(1)), path)
        if int8:
            quantize_dynamic(path, path, weight_type=QuantType.QInt8, per_channel=True, extra_options={"EnableSubgraph": True})
    shapes = [[part.shape[0], part.shape[2]] for part in model.zero_state(1)]
    about = {"name": info.name, "vocab_size": info.vocab_size, "eos": eos, "state_shapes": shapes}
    files.write_json(folder / "config.json", about)
    files.write_text(folder / "README.md", card(info, USE))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silences what the exporter and the quantizer say of themselves."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _step(model: LanguageModel) -> Any:
    """The ONNX model of a time step: inputs `step_ids` [batch], `step_state_0`, ...; outputs `step_log_probs`, `step_new_state_0`, ..."""
    batch, states = torch.export.Dim("batch"), model.zero_state(2)
    names = [f"state_{number}" for number in range(len(states))]
    program = torch.onnx.export(
        TimeStep(model), (torch.zeros(2, dtype=torch.int64), *states), dynamo=True, verbose=False, opset_version=OPSET,
        input_names=["step_ids", *(f"step_{name}" for name in names)],
        output_names=["step_log_probs", *(f"step_new_{name}" for name in names)],
        dynamic_shapes=({0: batch}, tuple({1: batch} for _ in states)),
    )  # fmt: skip
    assert program is not None
    return program.model_proto


def _scan(step: Any, states: State) -> Any:
    """The ONNX model of texts from that of a time step; `states`: the state of each layer, for their shapes."""
    from onnx import TensorProto, helper

    body, names = step.graph, [f"state_{number}" for number in range(len(states))]
    shapes: dict[str, list[str | int | None]] = {
        name: [part.shape[0], "batch", part.shape[2]] for name, part in zip(names, states, strict=True)
    }
    vocab_size = body.output[0].type.tensor_type.shape.dim[1].dim_value
    # A Scan hands its body the states, then a slice of what is scanned, and takes the same from it; weights the body sees around it.
    step_ids, *step_states = body.input
    log_probs, *new_states = body.output
    inner = helper.make_graph(list(body.node), "time_step", [*step_states, step_ids], [*new_states, log_probs])
    scan = helper.make_node(
        "Scan", [*names, "ids"], [*(f"new_{name}" for name in names), "log_probs"], "time_steps",
        body=inner, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
    )  # fmt: skip
    outer = helper.make_graph(
        [scan], "packlm",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "time"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()),
        ],
        [
            helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["batch", "time", vocab_size]),
            *(helper.make_tensor_value_info(f"new_{name}", TensorProto.FLOAT, shape) for name, shape in shapes.items()),
        ],
        list(body.initializer),
    )  # fmt: skip
    return helper.make_model(outer, opset_imports=step.opset_import, ir_version=step.ir_version, producer_name="packlm")


USE = f"""```python
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

config = json.load(open("THIS_FOLDER/config.json"))
tokenizer = Tokenizer.from_file("THIS_FOLDER/tokenizer.json")
model = onnxruntime.InferenceSession("THIS_FOLDER/model.onnx")
ids = np.array([tokenizer.encode("TEXT").ids])
states = {{
    f"state_{{layer}}": np.zeros([vectors, len(ids), size], np.float32)
    for layer, (vectors, size) in enumerate(config["state_shapes"])
}}
log_probs, *new_states = model.run(None, {{"ids": ids, **states}})
```

`log_probs[row, time]` is ln P(next token) over the vocabulary after the token at `time`; `new_states` are the states to read on from,
instead of the zeros. All rows of a call have the same length. The tokenizer puts `{EOS}` before a text, as the model was trained; to read
on, leave it out: `tokenizer.encode("MORE", add_special_tokens=False)`.
"""
