#!/usr/bin/env python3
"""Conversations rendered by Jinja2 in the settings of transformers, for the templates in ../tests/data/chat.

    python3 -m venv v && v/bin/pip install jinja2
    v/bin/python crates/trimtab-tokenizer/dev/chat.py

The templates are as their models publish them: smollm2 and qwen2.5 from tokenizer.chat_template of the GGUF files,
llama-3.2 from llama.cpp's models/templates, gemma-3 from the model's tokenizer_config.json. Writes
../tests/data/chat/expected.json; `null` where the template refuses the conversation.
"""

import json
import pathlib
from importlib.metadata import version

from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DIR = pathlib.Path(__file__).resolve().parents[1] / "tests/data/chat"
BOS = {"smollm2": "<|im_start|>", "qwen2.5": "<|endoftext|>", "llama-3.2": "<|begin_of_text|>", "gemma-3": "<bos>"}
EOS = {"smollm2": "<|im_end|>", "qwen2.5": "<|im_end|>", "llama-3.2": "<|eot_id|>", "gemma-3": "<eos>"}


def turn(role, content):
    return {"role": role, "content": content}


CONVERSATIONS = [
    [turn("user", "Hi")],
    [turn("user", "  Spaces around \n")],
    [turn("system", "Be brief."), turn("user", "What is 2 + 2?")],
    [turn("user", "One"), turn("assistant", "Two "), turn("user", "Drei \u00e9 \U0001f680 <b>&amp;</b>")],
    [turn("system", " Sys\n"), turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")],
    [turn("user", "a"), turn("user", "b")],
    [turn("assistant", "I begin"), turn("user", "")],
]


def raise_exception(message):
    raise TemplateError(message)


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.globals["raise_exception"] = raise_exception
    cases = []
    for path in sorted(DIR.glob("*.jinja")):
        template = env.from_string(path.read_text())
        for messages in CONVERSATIONS:
            for add_generation_prompt in [False, True]:
                try:
                    text = template.render(messages=messages, add_generation_prompt=add_generation_prompt, tools=None,
                                           documents=None, bos_token=BOS[path.stem], eos_token=EOS[path.stem])
                except TemplateError:
                    text = None
                cases.append({"template": path.stem, "bos": BOS[path.stem], "eos": EOS[path.stem], "messages": messages,
                              "add_generation_prompt": add_generation_prompt, "text": text})
    lines = ",\n".join(map(json.dumps, cases))
    (DIR / "expected.json").write_text(f'{{"made_by": "jinja2 {version("jinja2")}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
