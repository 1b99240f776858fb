"""Texts to the token ids of a CLIP-like model, by its ``tokenizer.json``."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import Encoding, Tokenizer, normalizers

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.small_files import read_small_file
from imagedex.embedding.clip.text_spec import Cleaning, TextSpec
from imagedex.embedding.texts import readable

# The vocabulary of OpenAI's CLIP has 49,408 entries, of which this is the last, and gives these
# ids for this sentence. A tokenizer without its merges, or with other ones, loads just as well.
_CLIP_END = "<|endoftext|>"
_CLIP_END_ID = 49_407
_CLIP_SENTENCE = "A photo of a dog, isn't it 12?"
_CLIP_IDS = [49406, 320, 1125, 539, 320, 1929, 267, 2923, 713, 585, 272, 273, 286, 49407]

# Letters that no vocabulary has whole: a tokenizer without a token for what it does not know would
# fail on the first query that has one.
_PROBES = ("", "dog", "dog \u72ac \U0001f415 \ue000")

_REMEDY = "Take tokenizer.json from where the model's graphs come from, or pull the model again."
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as its model reads it."""

    ids: tuple[int, ...]  # Start and end tokens among them, without padding; at least one.
    is_cut: bool  # Whether there was more of it.


class ClipTokenizer:
    """The tokenizer of one model. Safe to call from several threads."""

    def __init__(self, path: Path, spec: TextSpec) -> None:
        """Read ``path``. Raises ModelError for a tokenizer that cannot be the model's."""
        self._path = path
        self._cleaning = spec.cleaning
        self._tokenizer = self._load()
        # Both are set here whatever the file says: some published ones carry sections that fit
        # another use, and padding is the encoder's, which knows the batch.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=spec.context_length)
        self._require_sane(spec)
        self.pad_id = self._find_pad_id(spec)

    def encode(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of texts; long ones are cut and keep their end token.

        Raises ModelError for a tokenizer that fails on one.
        """
        # One by one: encode_batch would start threads of its own beside those of the models.
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> TokenizedText:
        kept, is_short = readable(text)
        encoding = self._encoding(self._clean(kept))
        # A text of no tokens at all is one of padding.
        ids = tuple(encoding.ids) or (self.pad_id,)
        return TokenizedText(ids, is_short or bool(encoding.overflowing))

    def _encoding(self, text: str) -> Encoding:
        with self._errors("fails on a text in"):
            return self._tokenizer.encode(text)

    def _load(self) -> Tokenizer:
        with self._errors("cannot be read by"):
            tokenizer = Tokenizer.from_str(read_small_file(self._path).decode())
        own = tokenizer.normalizer
        if self._cleaning is Cleaning.LOWER and (own is None or "A" in own.normalize_str("A")):
            steps = [normalizers.Lowercase()] if own is None else [normalizers.Lowercase(), own]
            tokenizer.normalizer = normalizers.Sequence(steps)
        return tokenizer

    @contextmanager
    def _errors(self, problem: str) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        # The tokenizers package raises bare exceptions, and its panics are no Exception.
        except BaseException as error:
            raise ModelError(
                f"The tokenizer {str(self._path)!r} {problem} tokenizers "
                f"{tokenizers.__version__}: {error}. {_REMEDY}"
            ) from error

    def _clean(self, text: str) -> str:
        if self._cleaning is Cleaning.CANONICAL:
            # As SigLIP was trained, and as OpenCLIP's canonicalize_text does; without its repair
            # of broken encodings and HTML entities, which queries have no need of:
            # https://github.com/google-research/big_vision, prompt_engineering.py.
            bare = text.replace("_", " ").translate(_WITHOUT_PUNCTUATION)
            return " ".join(bare.lower().split())
        return " ".join(text.split()) if self._cleaning is Cleaning.WHITESPACE else text

    def _require_sane(self, spec: TextSpec) -> None:
        if self._tokenizer.token_to_id(_CLIP_END) == _CLIP_END_ID:
            found = self._encoding(_CLIP_SENTENCE).ids
            if found != _CLIP_IDS:
                raise ModelError(
                    f"The tokenizer {str(self._path)!r} has CLIP's vocabulary but does not work: "
                    f"{_CLIP_SENTENCE!r} gives {found} and should give {_CLIP_IDS}. transformers 5 "
                    f"writes such files from vocab.json and merges.txt. {_REMEDY}"
                )
        specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if spec.context_length <= specials:
            # The tokenizers package would leave such texts uncut.
            raise ModelError(
                f"The model's files give texts {spec.context_length} tokens, of which the "
                f"tokenizer {str(self._path)!r} needs {specials} for itself. {_REMEDY}"
            )
        empty, word, _ = (self._encoding(text).ids for text in _PROBES)
        has_ends = len(empty) == 2 and word[:1] == empty[:1] and word[-1:] == empty[-1:]
        if spec.ends_matter and not has_ends:
            raise ModelError(
                f"The tokenizer {str(self._path)!r} does not put a start and an end token around "
                f"a text: an empty one gives {empty} and 'dog' gives {word}. {_REMEDY}"
            )

    def _find_pad_id(self, spec: TextSpec) -> int:
        if spec.pad_token is None:
            # The end token: a tower that is read at the first of them sees nothing after it.
            return int(self._encoding("").ids[-1])
        number = self._tokenizer.token_to_id(spec.pad_token)
        if number is None:
            raise ModelError(
                f"tokenizer_config.json pads with {spec.pad_token!r}, which {str(self._path)!r} "
                f"does not have. {_REMEDY}"
            )
        return int(number)
