"""Text and image graphs of a fixed size, as real exporters write them from one example."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    SiglipTextConfig,
    SiglipTextModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from exactness.checkpoints import open_clip_folder

Exporter = Literal["traced", "dynamo"]
VOCABULARY = 512
_TOWER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@dataclass(frozen=True)
class FixedExport:
    """What is exported, and for which example."""

    module: Any
    example: tuple[torch.Tensor, ...]
    names: tuple[str, ...]

    def write(self, path: Path, exporter: Exporter, *, free_batch: bool = False) -> Path:
        """Export to ``path`` for the example's size, but for the batch where it is free."""
        options: dict[str, Any] = {"dynamo": False, "opset_version": 17}
        if exporter == "dynamo":
            options = {"dynamo": True, "opset_version": 18, "external_data": False}
        if free_batch:
            options["dynamic_axes"] = {name: {0: "batch_size"} for name in self.names}
        torch.onnx.export(
            self.module,
            self.example,
            str(path),
            input_names=list(self.names),
            output_names=["vector"],
            verbose=False,
            **options,
        )
        return path


class _Calling(torch.nn.Module):  # type: ignore[misc] # Torch is not there to be checked.
    """A module whose forward is a function, with the arguments that the exporter names."""

    def __init__(self, owner: Any, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.owner = owner
        self.forward = forward


def open_clip(part: Literal["image", "text"]) -> FixedExport:
    """OpenCLIP's model behind Immich's wrapper: batch 1, int32 tokens, unit vectors."""
    torch.backends.mha.set_fastpath_enabled(False)
    torch.manual_seed(3)
    model = _open_clip_module("model").CLIP(
        embed_dim=32,
        vision_cfg={
            "image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16
        },
        text_cfg={
            "context_length": 77, "vocab_size": VOCABULARY, "width": 48, "heads": 4, "layers": 2
        },
    ).eval()  # fmt: skip
    _enlarge(model)
    if part == "image":
        model.forward = lambda image: model.encode_image(image, normalize=True)
        return FixedExport(model, (torch.randn(1, 3, 32, 32),), ("image",))
    model.forward = lambda text: model.encode_text(text, normalize=True)
    return FixedExport(model, (torch.ones(1, 77, dtype=torch.int32),), ("text",))


def clip_text() -> FixedExport:
    """The text model of transformers at 77 tokens."""
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, projection_dim=32, eos_token_id=VOCABULARY - 1, **_TOWER
    )
    model = CLIPTextModelWithProjection(config).eval()
    _enlarge(model)
    module = _Calling(model, lambda input_ids: model(input_ids=input_ids).text_embeds)
    return FixedExport(module, (torch.randint(4, 500, (1, 77)),), ("input_ids",))


def siglip_text() -> FixedExport:
    """The text model of SigLIP at 64 tokens, which all see each other."""
    torch.manual_seed(3)
    config = SiglipTextConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **_TOWER)
    model = SiglipTextModel(config).eval()
    _enlarge(model)
    module = _Calling(model, lambda input_ids: model(input_ids=input_ids).pooler_output)
    return FixedExport(module, (torch.randint(4, 500, (1, 64)),), ("input_ids",))


def multilingual_text() -> FixedExport:
    """M-CLIP's tower: XLM-RoBERTa with a mask, the mean of all tokens, one dense layer."""
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
        **_TOWER,
    )  # fmt: skip
    tower = XLMRobertaModel(config, add_pooling_layer=False).eval()
    dense = torch.nn.Linear(48, 32)
    _enlarge(tower)
    _enlarge(dense)

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # The additive mask that transformers made when the published files were exported.
        added = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        tokens = tower(input_ids, added)[0]
        summed = (tokens * attention_mask.unsqueeze(2)).sum(dim=1)
        pooled = dense(summed / attention_mask.sum(dim=1)[:, None])
        return torch.nn.functional.normalize(pooled, dim=-1)

    # Two tensors: of one and the same the exporter would make one input.
    example = (torch.full((1, 77), 5, dtype=torch.int32), torch.ones(1, 77, dtype=torch.int32))
    module = _Calling(torch.nn.ModuleList([tower, dense]), forward)
    return FixedExport(module, example, ("input_ids", "attention_mask"))


def _enlarge(model: Any) -> None:
    """Draw weights so large that different inputs get different vectors."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)


def _open_clip_module(name: str) -> Any:
    """Import a module of OpenCLIP without the package's own imports, which need torchvision."""
    if "open_clip" not in sys.modules:
        package = ModuleType("open_clip")
        package.__spec__ = find_spec("open_clip")
        package.__path__ = [str(open_clip_folder())]
        sys.modules["open_clip"] = package
        # Its convolutional towers freeze this; no transformer has one.
        operators = ModuleType("torchvision.ops.misc")
        operators.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (torch.nn.Module,), {})  # type: ignore[attr-defined]
        for stub in ("torchvision", "torchvision.ops"):
            sys.modules[stub] = ModuleType(stub)
            sys.modules[stub].__spec__ = ModuleSpec(stub, None)
        sys.modules["torchvision.ops.misc"] = operators
    return importlib.import_module(f"open_clip.{name}")
