#!/usr/bin/env python3
"""Small vocabularies of our own with expected token ids, so that the algorithms are tested where no model is.

    python3 -m venv v && v/bin/pip install tokenizers sentencepiece protobuf gguf
    v/bin/python crates/trimtab-tokenizer/dev/synthetic.py

Trains a byte-level BPE vocabulary with the `tokenizers` library and a SentencePiece one with `sentencepiece`, both on
texts.py's words and the sentences below, and writes ../tests/data/{byte_level,space_mark}.json: the vocabulary, and ids
that the same libraries give under the settings of published models. Knows nothing of Trimtab's inside.
"""

import io
import json
import pathlib
from importlib.metadata import version

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from parity import QWEN
from texts import TEXTS

OUT = pathlib.Path(__file__).resolve().parents[1] / "tests/data"
SENTENCES = [
    "A trim tab is a small surface on the trailing edge of a rudder; turning it turns the rudder, which turns the ship.",
    "The small tab moves with little effort, and the large rudder follows, and the larger ship follows the rudder.",
    "When the reward is high the answer is kept; when the reward is low another answer is drawn, and drawn again.",
    "There was a little girl who had a little dog, and the little dog had a little ball, and the ball was red.",
    "In 1905 and in 1915 he wrote; in 2024 and 2025 they read 1234567890 words, then 42 more, then 7.",
    "Don't say you can't: we'll see what they're doing, and I've seen what you'd do.",
    "def follow(rudder):\n    return rudder.turn(angle)\n\ndef turn(angle):\n    return angle * 2\n",
]
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
ADDED = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool>", False)]


def split(regex):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    step = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [step, byte_level]}


GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2]}
# As published: the normalizer, the pre-tokenizer, whether whole words skip the merges, and GGUF's name for the cut.
BYTE_LEVEL = {
    "gpt-2": (None, GPT2, False),
    "smollm": (None, DIGITS, False),
    "qwen2": ({"type": "NFC"}, split(QWEN), False),
    "llama-bpe": (None, split(LLAMA3), True),
}
MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, MARK]}
GEMMA_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
SPACE_MARK = {
    "llama-2": (PREPEND, None, False),
    "gemma": (MARK, GEMMA_SPLIT, False),
}


def cases(tokenizer, texts):
    """Ids with control tokens as text, and parsed."""
    out = []
    for text in texts:
        tokenizer.encode_special_tokens = True
        case = {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
        tokenizer.encode_special_tokens = False
        if (parsed := tokenizer.encode(text, add_special_tokens=False).ids) != case["ids"]:
            case["ids_parsed"] = parsed
        out.append(case)
    return out


def variants(tokenizer_json, settings, texts):
    out = {}
    for name, (normalizer, pre_tokenizer, ignore_merges) in settings.items():
        fields = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "ignore_merges": ignore_merges}
        model = tokenizer_json["model"] | {"ignore_merges": ignore_merges}
        full = tokenizer_json | {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model}
        out[name] = fields | {"cases": cases(Tokenizer.from_str(json.dumps(full)), texts)}
    return out


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 2, trainer)
    for piece, special in ADDED:
        tokenizer.add_tokens([AddedToken(piece, special=special, normalized=False)])
    tokenizer_json = json.loads(tokenizer.to_str())
    texts = TEXTS + SENTENCES + ["a<tool>b <|im_end|><|im_end|> c", "<|im_start|>", "rudder<|endoftext|>"]
    return {"tokenizer_json": tokenizer_json, "variants": variants(tokenizer_json, BYTE_LEVEL, texts)}


def merges_of(pieces):
    """All rules that make a piece of two others, best result first, as transformers converts SentencePiece models."""
    scores = {piece.piece: piece.score for piece in pieces if piece.type == 1}
    ids = {piece.piece: idx for idx, piece in enumerate(pieces)}
    merges = []
    for piece, score in scores.items():
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        cuts = [cut for cut in cuts if cut[0] in scores and cut[1] in scores]
        merges.extend((cut, score) for cut in sorted(cuts, key=lambda cut: (ids[cut[0]], ids[cut[1]])))
    return [list(cut) for cut, _ in sorted(merges, key=lambda merge: merge[1], reverse=True)]


def space_mark():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 2), model_writer=out, model_type="bpe", vocab_size=480, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, control_symbols=["<turn>"],
        user_defined_symbols=["<tool>"], character_coverage=1.0, minloglevel=2)
    model = pb.ModelProto.FromString(out.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    texts = TEXTS + SENTENCES + ["a<tool>b <tool>", "<turn>x"]
    ids = {piece.piece: idx for idx, piece in enumerate(model.pieces)}
    special = [(idx, piece.piece, piece.type != 4) for idx, piece in enumerate(model.pieces) if piece.type in (2, 3, 4)]
    tokenizer_json = {
        "version": "1.0",
        "added_tokens": [{"id": idx, "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": is_special} for idx, piece, is_special in special],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": ids,
                  "merges": merges_of(model.pieces)},
    }
    return {
        "pieces": [[piece.piece, piece.score, piece.type] for piece in model.pieces],
        "cases": [{"text": text, "ids": processor.encode(text)} for text in texts],
        "tokenizer_json": tokenizer_json,
        "variants": variants(tokenizer_json, SPACE_MARK, texts + ["x<turn> y", "<turn><turn>"]),
    }


def main():
    made_by = {name: version(name) for name in ["tokenizers", "sentencepiece"]}
    for name, fixture in [("byte_level", byte_level()), ("space_mark", space_mark())]:
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in ({"made_by": made_by} | fixture).items())
        (OUT / f"{name}.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
