"""CLIP-like models over ONNX files: one embedder for what public hubs carry."""

from imagedex.embedding.clip.files import ModelFiles, find_model_files
from imagedex.embedding.clip.lock_file import LockFile
from imagedex.embedding.clip.model import ClipModel

__all__ = ["ClipModel", "LockFile", "ModelFiles", "find_model_files"]
