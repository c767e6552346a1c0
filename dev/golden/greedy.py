#!/usr/bin/env python3
"""Greedy texts of small models in f32 by llama.cpp: the expected values that Trimtab's own f32 path is held to.

    python3 -m venv v && v/bin/pip install llama-cpp-python==0.3.36 gguf jinja2 numpy
    v/bin/python dev/golden/greedy.py smollm2-135m-instruct=PATH.gguf qwen2.5-coder-0.5b-instruct=PATH.gguf \
        gemma3-270m=PATH.gguf stories15m=DIR stories260k=DIR    # DIR holds the weights (*.bin) and the vocabulary (tok*.bin)

For each model it writes crates/trimtab-runtime/tests/golden/<model>.json: prompt texts, prompt ids, expected ids, and
for each step the margin in logits between the best and the second token, so that a mismatch can be told from a tie.

Why the values are believed: they come from a program that shares no code with Trimtab. Quantised files are first
written out as F32 by llama.cpp, so both sides multiply the same weights; the key-value cache is F32 and flash
attention is off, so no step rounds below f32. Knows nothing of Trimtab's inside.
"""

import argparse
import ctypes
import hashlib
import json
import pathlib
import platform
import struct
import tempfile

import gguf
import jinja2.sandbox
import llama_cpp
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/trimtab-runtime/tests/golden"
NUM_NEW = 96
CONTEXT = 512
CHAT = {"chat": [{"role": "user", "content": "Write a short story about a robot that learns to paint."}]}
CODE_CHAT = {"chat": [{"role": "user", "content": "Write a Python function that returns the n-th prime number."}]}
STORIES = ["Once upon a time", "One day, Tom and his dog went to the park.", "The little red car was sad because"]
PROMPTS = {
    "smollm2-135m-instruct": ["The history of the steam engine begins with", "Once upon a time, in a small village", "def fibonacci(n):\n", CHAT],
    "qwen2.5-coder-0.5b-instruct": ["def quicksort(items):\n", "The three laws of thermodynamics are", "// Reads a file\nfn main() {", CODE_CHAT],
    "gemma3-270m": ["The history of the steam engine begins with", "Once upon a time, in a small village", "Die Hauptstadt von Frankreich ist", "def fibonacci(n):\n"],
    "stories15m": STORIES,
    "stories260k": STORIES,
}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_llama2c(path, vocab_path):
    """Sizes, tensors by GGUF name, and scored pieces of a llama2.c model in the legacy format."""
    data = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, seq = struct.unpack("7i", data[:28])
    shared, vocab, head_dim = vocab > 0, abs(vocab), dim // heads
    floats, at = np.frombuffer(data, np.float32, offset=28), 0

    def take(*shape):
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return floats[at - size : at].reshape(shape)

    tensors = {"token_embd.weight": take(vocab, dim)}
    blocks = [  # in the file's order, one array for all layers
        ("attn_norm", (dim,)), ("attn_q", (dim, dim)), ("attn_k", (kv_heads * head_dim, dim)),
        ("attn_v", (kv_heads * head_dim, dim)), ("attn_output", (dim, dim)), ("ffn_norm", (dim,)),
        ("ffn_gate", (hidden, dim)), ("ffn_down", (dim, hidden)), ("ffn_up", (hidden, dim)),
    ]
    for name, shape in blocks:
        for layer, tensor in enumerate(take(layers, *shape)):
            tensors[f"blk.{layer}.{name}.weight"] = tensor
    tensors["output_norm.weight"] = take(dim)
    take(2, seq, head_dim // 2)  # tables of sines that nobody reads
    if not shared:
        tensors["output.weight"] = take(vocab, dim)
    pieces, raw, at_byte = [], vocab_path.read_bytes(), 4
    while at_byte < len(raw):
        score, length = struct.unpack_from("fi", raw, at_byte)
        pieces.append((score, raw[at_byte + 8 : at_byte + 8 + length]))
        at_byte += 8 + length
    return dict(dim=dim, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads, seq=seq), tensors, pieces


def llama2c_to_gguf(folder, out):
    """Writes a llama2.c model as F32 GGUF. Pairs of the rotary embedding are neighbours in both, so nothing moves."""
    vocab_path = next(path for path in sorted(folder.glob("tok*.bin")))
    path = next(path for path in sorted(folder.glob("*.bin")) if path != vocab_path)
    sizes, tensors, pieces = read_llama2c(path, vocab_path)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(sizes["seq"])
    writer.add_embedding_length(sizes["dim"])
    writer.add_block_count(sizes["layers"])
    writer.add_feed_forward_length(sizes["hidden"])
    writer.add_head_count(sizes["heads"])
    writer.add_head_count_kv(sizes["kv_heads"])
    writer.add_rope_dimension_count(sizes["dim"] // sizes["heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    texts = [piece.replace(b" ", "▁".encode()) for _, piece in pieces]
    texts[3:259] = [b"<0x%02X>" % byte for byte in range(256)]  # older files name them by their Latin-1 characters
    writer.add_token_list(texts)
    writer.add_token_scores([score for score, _ in pieces])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, vocab_path


def to_f32(path, out):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    params.allow_requantize = True
    params.nthread = 2
    assert llama_cpp.llama_model_quantize(str(path).encode(), str(out).encode(), ctypes.byref(params)) == 0


def chat_text(path, messages):
    """The published template in the settings of the transformers library."""
    fields = gguf.GGUFReader(path).fields
    field = fields["tokenizer.chat_template"].contents()
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    return env.from_string(field).render(messages=messages, add_generation_prompt=True, tools=None)


class Model:
    """One F32 model and its context."""

    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.num_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context.n_batch = CONTEXT
        context.n_threads = context.n_threads_batch = 2
        context.type_k = context.type_v = llama_cpp.GGML_TYPE_F32
        context.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, context)

    def tokenize(self, text, chat):
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 8))()
        # A raw prompt starts with BOS if the model asks for it; a template writes its own.
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), not chat, chat)
        return list(ids[:count])

    def text(self, ids):
        out = b""
        for token in ids:
            buffer = ctypes.create_string_buffer(256)
            length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 256, 0, False)
            out += buffer.raw[:length]
        return out.decode(errors="replace")

    def logits(self, ids):
        array = (llama_cpp.llama_token * len(ids))(*ids)  # the batch only points to it
        batch = llama_cpp.llama_batch_get_one(array, len(ids))
        assert llama_cpp.llama_decode(self.context, batch) == 0
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), shape=(self.num_vocab,)).copy()

    def greedy(self, prompt_ids):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        ids, margins, logits = [], [], self.logits(prompt_ids)
        while len(ids) < NUM_NEW:
            second, best = np.sort(logits)[-2:]
            margins.append(round(float(best - second), 5))
            ids.append(int(logits.argmax()))
            if llama_cpp.llama_vocab_is_eog(self.vocab, ids[-1]):
                break
            logits = self.logits(ids[-1:])
        return ids, margins


def golden(name, source, scratch):
    f32 = scratch / f"{name}.gguf"
    if source.is_dir():
        files = dict(zip(["model_sha256", "vocab_sha256"], map(sha256, llama2c_to_gguf(source, f32))))
    else:
        to_f32(source, f32)
        files = {"model_sha256": sha256(source)}
    model, cases = Model(f32), []
    for prompt in PROMPTS[name]:
        chat = isinstance(prompt, dict)
        text = chat_text(source, prompt["chat"]) if chat else prompt
        prompt_ids = model.tokenize(text, chat)
        ids, margins = model.greedy(prompt_ids)
        case = {"messages": prompt["chat"]} if chat else {}
        cases.append(case | {"prompt": text, "prompt_ids": prompt_ids, "expected_ids": ids,
                             "expected_text": model.text(ids), "margins": margins})
        print(name, "|", model.text(ids).replace("\n", "\\n")[:100], "| least margin", min(margins))
    return {
        "model": name, **files,
        "made_by": {"script": "dev/golden/greedy.py", "llama-cpp-python": llama_cpp.__version__,
                    "numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()},
        "precision": "f32 weights (dequantised where the file is quantised), f32 cache, flash attention off",
        "cases": cases,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    for entry in args.models:
        name, path = entry.split("=", 1)
        with tempfile.TemporaryDirectory() as scratch:
            result = golden(name, pathlib.Path(path), pathlib.Path(scratch))
        # One case a line keeps differences readable.
        cases = ",\n".join(json.dumps(case, ensure_ascii=False) for case in result.pop("cases"))
        head = json.dumps(result, indent=1, ensure_ascii=False)[:-2]
        (args.out / f"{name}.json").write_text(f'{head},\n "cases": [\n{cases}\n]\n}}\n')


if __name__ == "__main__":
    main()
