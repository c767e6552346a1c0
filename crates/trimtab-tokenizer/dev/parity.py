#!/usr/bin/env python3
"""Expected token ids of real vocabularies, from programs that share no code with Trimtab.

    python3 -m venv v && v/bin/pip install tokenizers sentencepiece protobuf gguf llama-cpp-python==0.3.36
    v/bin/python crates/trimtab-tokenizer/dev/parity.py library smollm2=PATH.gguf qwen2.5=PATH.gguf gemma3=PATH.gguf
    v/bin/python crates/trimtab-tokenizer/dev/parity.py model tok512=PATH.model
    v/bin/python crates/trimtab-tokenizer/dev/parity.py published llama-bpe=ggml-vocab-llama-bpe.gguf qwen2=...

`library` takes pieces and merges from a GGUF file and tokenises with the `tokenizers` library in the settings of the
model's published tokenizer.json, or with `sentencepiece` if the pieces have scores; llama.cpp must agree, and texts
where it does not are listed on stderr. `model` reads a SentencePiece model. `published` copies the texts and ids that
llama.cpp's source package has beside its vocabularies, which its authors made with transformers.

Each run writes ../tests/data/parity/NAME.json: what the vocabulary is known by, and texts with their ids; no vocabulary.
"""

import ctypes
import json
import pathlib
import sys
from importlib.metadata import version

import gguf

from texts import TEXTS

OUT = pathlib.Path(__file__).resolve().parents[1] / "tests/data/parity"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
QWEN = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def metadata(path):
    keys = ["model", "pre", "tokens", "scores", "token_type", "merges", "add_space_prefix"]
    fields = gguf.GGUFReader(path).fields
    return {key: fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else None for key in keys}


def byte_level(meta):
    """The library in the settings of the published tokenizer.json of SmolLM2 and Qwen2.5 (less Qwen's NFC)."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers as pre

    ids = {piece: idx for idx, piece in enumerate(meta["tokens"])}
    tokenizer = Tokenizer(models.BPE(ids, [tuple(merge.split(" ")) for merge in meta["merges"]]))
    tokenizer.pre_tokenizer = pre.Sequence({
        "smollm": lambda: [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)],
        "qwen2": lambda: [pre.Split(Regex(QWEN), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)],
    }[meta["pre"]]())
    special = [piece for piece, kind in zip(meta["tokens"], meta["token_type"]) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])

    def encode(text, parse):
        tokenizer.encode_special_tokens = not parse
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode, "tokenizers"


def sentence_piece(meta):
    """A SentencePiece model with the file's pieces, scores and kinds."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2 as pb

    model = pb.ModelProto()
    for piece, score, kind in zip(meta["tokens"], meta["scores"], meta["token_type"]):
        # GGUF files write the spaces of user-defined pieces as spaces.
        model.pieces.add(piece=piece.replace(" ", "▁") if kind == 4 else piece, score=score, type=kind)
    model.trainer_spec.model_type = 2  # BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = meta["add_space_prefix"] is not False
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = SentencePieceProcessor(model_proto=model.SerializeToString())
    return lambda text, parse: processor.encode(text), "sentencepiece"


def llama_cpp_encoder(path):
    import llama_cpp

    global quiet
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    vocab = llama_cpp.llama_model_get_vocab(llama_cpp.llama_model_load_from_file(str(path).encode(), params))

    def encode(text, parse):
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 8))()
        return list(ids[: llama_cpp.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, parse)])

    return encode


def write(name, meta, source, cases):
    head = {"known_by": {key: meta[key] for key in ["model", "pre"]} | {"num_tokens": len(meta["tokens"])}, "source": source}
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (OUT / f"{name}.json").write_text(f'{json.dumps(head)[:-1]},\n"cases": [\n{lines}\n]}}\n')


def library(name, path):
    meta = metadata(path)
    encode, made_by = (byte_level if meta["model"] == "gpt2" else sentence_piece)(meta)
    other = llama_cpp_encoder(path)
    cases = []
    for text in TEXTS:
        ids = encode(text, False)
        if ids != (others := other(text, False)):
            print(f"{name}: llama.cpp differs on {text!r}: {ids} {others}", file=sys.stderr)
        case = {"text": text, "ids": ids}
        if meta["model"] == "gpt2" and (parsed := encode(text, True)) != ids:
            case["ids_parsed"] = parsed
        cases.append(case)
    write(name, meta, f"{made_by} {version(made_by)}", cases)


def model(name, path):
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=path)
    meta = {"model": "llama2.c", "pre": None, "tokens": range(len(processor))}
    cases = [{"text": text, "ids": processor.encode(text)} for text in TEXTS]
    write(name, meta, f"sentencepiece {version('sentencepiece')}", cases)


def published(name, path):
    mark = "\n__ggml_vocab_test__\n"
    texts = pathlib.Path(path + ".inp").read_bytes().decode().split(mark)
    ids = [list(map(int, line.split())) for line in pathlib.Path(path + ".out").read_text().split("\n")]
    cases = [{"text": text, "ids": line} for text, line in zip(texts, ids)]
    write(name, metadata(path), "llama.cpp's models/*.inp and *.out, from transformers", cases)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for entry in sys.argv[2:]:
        {"library": library, "model": model, "published": published}[sys.argv[1]](*entry.split("=", 1))
