#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: tiny valid inputs, one or more for each target.

    python3 fuzz/seeds.py

Valid by construction from the formats' descriptions, and a test holds that each is accepted. Knows nothing of Trimtab.
"""

import json
import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent / "seeds"
LLAMA = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": True,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 32},
}
GEMMA = {
    "model_type": "gemma3_text", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
    "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8,
    "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rms_norm_eps": 1e-6,
}
CHATS = {
    "turns.jinja": "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
                   "message['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}"
                   "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "system.jinja": "{%- if messages[0].role == 'system' -%}\n{%- set system = messages[0].content -%}\n"
                    "{%- set rest = messages[1:] -%}\n{%- endif -%}\n{%- for m in rest -%}\n"
                    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}\n"
                    "{{ raise_exception('roles must alternate') }}\n{%- endif -%}\n"
                    "{{ system | tojson }} {{ m.content.strip().upper() }}{{ eos_token }}\n{%- endfor -%}\n",
}


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf():
    fields = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("llama.rope.freq_base") + struct.pack("<If", 6, 1e4),
        text("tokenizer.ggml.add_bos_token") + struct.pack("<IB", 7, 1),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("b") + text("<s>"),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ3f", 9, 6, 3, 0.0, -1.0, -2.0),
        text("tokenizer.ggml.token_type") + struct.pack("<IIQ3i", 9, 5, 3, 1, 1, 3),
    ]
    tensors = [  # name, sizes from the innermost, type, data
        ("a.weight", (4, 2), 0, struct.pack("<8f", *range(8))),
        ("b.weight", (32,), 8, struct.pack("<e32b", 0.5, *range(32))),
        ("c.weight", (3,), 1, struct.pack("<3e", 1, 2, 3)),
    ]
    infos, data = b"", b""
    for name, shape, kind, content in tensors:
        data += bytes(-len(data) % 32)
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields) + infos
    return head + bytes(-len(head) % 32) + data


def llama2c():
    dim, hidden, layers, heads, kv_heads, vocab, seq = 4, 4, 1, 2, 2, 4, 2
    num = vocab * dim + layers * (2 * dim + 4 * dim * dim + 3 * dim * hidden) + dim + seq * dim // heads
    return struct.pack(f"<7i{num}f", dim, hidden, layers, heads, kv_heads, vocab, seq, *(i / 8 for i in range(num)))


def llama2c_tokenizer():
    pieces = [b"<unk>", b"<s>", b"</s>", b" a", "é".encode()]
    file = struct.pack("<I", max(map(len, pieces)))
    file += b"".join(struct.pack("<fi", -i, len(piece)) + piece for i, piece in enumerate(pieces))
    return struct.pack("<H", len(pieces)) + file


def safetensors():
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b.weight": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    }).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + struct.pack("<4f3H", 1, 2, 3, 4, 0x3F80, 0x4000, 0x4040)


def tokenizer():
    byte_level = {
        "added_tokens": [{"id": 4, "content": "<s>", "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        "model": {"type": "BPE", "ignore_merges": True, "merges": [["s", ">"], "s s"],
                  "vocab": {"<": 0, "s": 1, ">": 2, "s>": 3, "<s>": 4, "a": 5, "ss": 6, "Ġ": 7}},
    }
    config = {"bos_token": "<s>", "eos_token": {"content": "<s>"}, "add_bos_token": True,
              "chat_template": "{{ messages[0].content }}"}
    space_mark = {
        "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "model": {"type": "BPE", "byte_fallback": True, "merges": [["▁", "a"]],
                  "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "▁a": 4}
                  | {f"<0x{byte:02X}>": 5 + byte for byte in range(256)}},
    }
    dump = lambda value: json.dumps(value, ensure_ascii=False).encode()
    return {"byte_level": b"\0".join([dump(byte_level), dump(config), dump({"eos_token_id": [4]}), b"{{ bos_token }}"]),
            "space_mark": dump(space_mark)}


def main():
    index = {"metadata": {"total_size": 22}, "weight_map": {
        "a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}}
    seeds = {
        "chat_template": {name: source.encode() for name, source in CHATS.items()},
        "config_json": {"llama.json": json.dumps(LLAMA).encode(), "gemma.json": json.dumps(GEMMA).encode()},
        "gguf": {"three.gguf": gguf()},
        "llama2c": {"tiny.bin": llama2c()},
        "llama2c_tokenizer": {"five": llama2c_tokenizer()},
        "safetensors": {"two.safetensors": safetensors()},
        "safetensors_index": {"two.json": json.dumps(index).encode()},
        "tokenizer_json": tokenizer(),
    }
    for target, files in seeds.items():
        (OUT / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (OUT / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
