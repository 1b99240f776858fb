"""The second layout, written from a checkpoint as Optimum writes it: with the traced exporter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch


class _Half(torch.nn.Module):  # type: ignore[misc] # Torch is not there where types are checked.
    def __init__(self, tower: Any, projection: Any, argument: str) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.argument = argument

    def forward(self, values: torch.Tensor) -> Any:
        return self.projection(self.tower(**{self.argument: values}).pooler_output)


def write_second_layout(checkpoint: Path, model: Any, directory: Path, *, length: int) -> Path:
    """Write the model of ``checkpoint`` with free axes, as far as it is trained for them."""
    (directory / "onnx").mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        shutil.copyfile(checkpoint / name, directory / name)
    shutil.copyfile(checkpoint / "tokenizer_config.json", directory / "tokenizer_config.json")
    is_clip = model.config.model_type == "clip"
    identity = torch.nn.Identity()
    size = model.config.vision_config.image_size
    _export(
        _Half(model.vision_model, getattr(model, "visual_projection", identity), "pixel_values"),
        torch.randn(2, 3, size, size),
        directory / "onnx" / "vision_model.onnx",
        "pixel_values",
        "image_embeds" if is_clip else "pooler_output",
    )
    _export(
        _Half(model.text_model, getattr(model, "text_projection", identity), "input_ids"),
        torch.randint(1, 200, (2, length)),
        directory / "onnx" / "text_model.onnx",
        "input_ids",
        "text_embeds" if is_clip else "pooler_output",
    )
    return directory


def _export(half: _Half, example: torch.Tensor, path: Path, name: str, output: str) -> None:
    torch.onnx.export(
        half.eval(),
        (example,),
        str(path),
        input_names=[name],
        output_names=[output],
        opset_version=17,
        dynamo=False,
        dynamic_axes={name: {0: "batch_size"}, output: {0: "batch_size"}},
    )
