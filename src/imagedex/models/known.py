"""The published models that can be pulled by name, and why these.

Revisions and digests are those under which these files were found in public manifests of other
projects; a digest is given where at least two of them agree, or where the file could be made
again byte for byte. All other files are held against what the hub says of them at that revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.models.records import Half, HubSource, KnownImageHalf, KnownModel

# OpenAI's weights come from Xenova's exports. Those of Immich have the same weights, but compute
# GELU exactly where OpenAI trained with its approximation x * sigmoid(1.702 x): others report a
# cosine of 0.952 to 0.966 for ViT-B/32, so they would not reproduce an old index.
_OPENAI_L14 = HubSource(
    repo="Xenova/clip-vit-large-patch14",
    revision="c307790166907339eed5a9a53a249af534102536",
    sha256={
        "onnx/vision_model.onnx": (
            "ff49f8aa57c7abfd26e382eb083e4dbf988505223a9bd3767dbfd4e729206709"
        ),
        "onnx/text_model.onnx": (
            "a86051a90491b97e2ea1d0351ef664926735bca7536034384f901915ee91fd69"
        ),
        "preprocessor_config.json": (
            "6f638fb9401a6d6296feff533ee7efe657b787c49f954f82f5906b36ef2a1b1f"
        ),
    },
)

_OPENAI_B32 = HubSource(
    repo="Xenova/clip-vit-base-patch32",
    revision="d15189d7028b43f1d3e65039190477f6af591c2a",
    sha256={
        "onnx/vision_model.onnx": (
            "fd6e1402a588279d1723c7534d4bcba5bc0b14b47dfab0e46f8c47b8270d7d40"
        ),
        "onnx/text_model.onnx": (
            "3f6571f5bad13a97c469c1622e1cfc4d9aef78b79fdbfcff804ca357bfada8cc"
        ),
        "tokenizer.json": ("f7f3b7af117d467b58374797691a6438d3e6b9e9cef800dfd5dced7f697a90cd"),
    },
)


def _openai_image_half(source: HubSource) -> KnownImageHalf:
    """Describe an image half of OpenAI's, as ``preprocessor_config.json`` of these exports does."""
    spec = ImageSpec(
        height=224,
        width=224,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        interpolation="bicubic",
        resize="shortest",
        crop_rounding="down",
    )
    return KnownImageHalf(spec, "vision_model.onnx", source.sha256["onnx/vision_model.onnx"])


_MODELS = (
    KnownModel(
        name="clip-ViT-L-14",
        summary="OpenAI CLIP, the model of sentence-transformers of this name",
        dim=768,
        licence="MIT",
        sources=(_OPENAI_L14,),
        image_half=_openai_image_half(_OPENAI_L14),
    ),
    KnownModel(
        name="clip-ViT-B-32",
        summary="OpenAI CLIP, about 20 times as fast, finds less",
        dim=512,
        licence="MIT",
        sources=(_OPENAI_B32,),
        image_half=_openai_image_half(_OPENAI_B32),
    ),
    KnownModel(
        name="dfn-ViT-L-14",
        summary="DFN-2B: the size of clip-ViT-L-14, finds much more",
        dim=768,
        licence="Apple's own",
        sources=(
            HubSource(
                repo="immich-app/ViT-L-14-quickgelu__dfn2b",
                revision="63233c0b8490970c762a31a25a937e56fba65be3",
            ),
        ),
    ),
    KnownModel(
        name="siglip2-ViT-B-32-256",
        summary="SigLIP 2: fast, many languages",
        dim=768,
        licence="Apache-2.0",
        sources=(
            HubSource(
                repo="immich-app/ViT-B-32-SigLIP2-256__webli",
                revision="762c736d366fc253e9453021144f9fe71789b075",
                sha256={
                    "visual/model.onnx": (
                        "e96b8a3d32ab1b683aa12c45312342b4a10d4befef5f195f5cf84eadf1938696"
                    ),
                    "textual/model.onnx": (
                        "ba6e09d2dbb3d7ac0f9e2935676db92dceebddfd06c1462b67019caa90eeea20"
                    ),
                    "textual/tokenizer.json": (
                        "220c63d496e0c14e63eb656c91e0215e926202e4c74b1f089e09f1920d779b04"
                    ),
                },
            ),
        ),
    ),
    KnownModel(
        name="clip-ViT-L-14-multilingual",
        summary="M-CLIP: asks an index of clip-ViT-L-14 in some 100 languages",
        dim=768,
        licence="MIT; texts unstated",
        sources=(
            # The very image half of clip-ViT-L-14, so that both serve the same index.
            HubSource(
                repo=_OPENAI_L14.repo,
                revision=_OPENAI_L14.revision,
                half=Half.IMAGE,
                sha256=_OPENAI_L14.sha256,
            ),
            HubSource(
                repo="immich-app/XLM-Roberta-Large-Vit-L-14",
                revision="c06443b7a7ae217e15d35daa0b936fdf3c6fd880",
                half=Half.TEXT,
                # Weights of an earlier export that nothing refers to; the next commits delete it.
                without=frozenset({"textual/1dc79532-4888-11ef-aebd-00155d655292"}),
            ),
        ),
        image_half=_openai_image_half(_OPENAI_L14),
    ),
)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType({model.name: model for model in _MODELS})
