"""What the CLIP benchmarks need torch for: random weights of full size, and the old worker's loop.

Run as a program by the interpreter of the exactness job's environment, where torch and
transformers are installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "ViT-L-14": {
        "projection_dim": 768,
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "eos_token_id": 49407,
        },
    },
    "ViT-B-32": {
        "projection_dim": 512,
        "vision_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "patch_size": 32,
        },
        "text_config": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "eos_token_id": 49407,
        },
    },
}
_OLD_BATCH = 32  # What sentence-transformers' encode() took by default.


def make_checkpoint(size: str, directory: Path) -> None:
    """Write a Hugging Face CLIP checkpoint of this size with random weights."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from exactness.checkpoints import write_clip_tokenizer

    torch.manual_seed(0)
    CLIPModel(CLIPConfig(**SIZES[size])).save_pretrained(directory)
    CLIPImageProcessorPil().save_pretrained(directory)
    write_clip_tokenizer(directory)


def old_loop(directory: Path, photos: Path, seconds: float) -> dict[str, float]:
    """Embed photos as the old workers did: PIL and transformers, torch in float32, batch 32."""
    import torch
    from PIL import Image
    from transformers import CLIPImageProcessorPil, CLIPModel

    model = CLIPModel.from_pretrained(directory).eval()
    processor = CLIPImageProcessorPil.from_pretrained(directory)
    paths = sorted(photos.glob("*.jpg"))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = [paths[(done + place) % len(paths)] for place in range(_OLD_BATCH)]
        pictures = [Image.open(path).convert("RGB") for path in batch]
        with torch.inference_mode():
            model.get_image_features(**processor(images=pictures, return_tensors="pt"))
        done += len(batch)
    elapsed = time.perf_counter() - started
    return {"images": done, "seconds": elapsed, "images_per_second": done / elapsed}


def main() -> int:
    """Do one of the two; the loop's figures go to stdout as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint = commands.add_parser("checkpoint")
    checkpoint.add_argument("size", choices=sorted(SIZES))
    checkpoint.add_argument("directory", type=Path)
    loop = commands.add_parser("old-loop")
    loop.add_argument("directory", type=Path)
    loop.add_argument("photos", type=Path)
    loop.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    if arguments.command == "checkpoint":
        make_checkpoint(arguments.size, arguments.directory)
    else:
        json.dump(old_loop(arguments.directory, arguments.photos, arguments.seconds), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
