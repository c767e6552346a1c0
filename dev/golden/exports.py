#!/usr/bin/env python3
"""Do other programs open what `trimtab export model` writes, and do they say the same?

    python3 -m venv v && v/bin/pip install torch transformers xllamacpp
    v/bin/python dev/golden/exports.py --trimtab target/release/trimtab smollm2-135m-instruct stories15m

Each model leaves in both formats in f32. transformers (AutoModelForCausalLM, AutoTokenizer) opens the folder and llama.cpp
(the server in xllamacpp) the GGUF file. Compared with `trimtab generate` and with the golden texts beside this script's
sibling greedy.py, which come from the models' original files: ids of prompts, the text of the chat template, greedy ids,
and the log-probability of the answer. A difference of ids where the golden margin is below 0.001 logits is a tie, not a
fault. Nothing is fetched but by `trimtab` itself; exit code 1 if anything differs. Knows nothing of Trimtab's inside.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/trimtab-runtime/tests/golden"
NUM_NEW = 24
TIE = 1e-3


class Report:
    """What was found, one line each."""

    def __init__(self):
        self.num_wrong = 0

    def check(self, what, holds, detail=""):
        self.num_wrong += not holds
        print(f"  {'ok   ' if holds else 'WRONG'} {what}{': ' + detail if detail else ''}", flush=True)


def run(trimtab, *args):
    done = subprocess.run([trimtab, *args], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def first_difference(got, expected, margins):
    """Where greedy ids part for another reason than a tie; none if they do not."""
    for step, (a, b) in enumerate(zip(got, expected)):
        if a != b:
            return None if margins[step] < TIE else step
    return None


def check_greedy(report, who, got, case):
    step = first_difference(got, case["expected_ids"][:NUM_NEW], case["margins"])
    report.check(f"{who}: greedy ids of {case['prompt'][:30]!r}", step is None and len(got) > 0,
                 "" if step is None else f"part at step {step}")


def check_transformers(report, folder, cases, ours):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True)
    model.eval()
    left = {key: sorted(value) for key, value in info.items() if value}
    report.check(f"transformers: {type(model).__name__} has every weight and no other", not left, str(left or ""))
    for case in cases:
        if "messages" in case:
            text = tokenizer.apply_chat_template(case["messages"], add_generation_prompt=True, tokenize=False)
            report.check("transformers: text of the chat template", text == case["prompt"])
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(case["prompt"])["input_ids"]
        report.check(f"transformers: ids of {case['prompt'][:30]!r}", ids == case["prompt_ids"])
        prompt = torch.tensor([ids])
        with torch.no_grad():
            out = model.generate(prompt, do_sample=False, max_new_tokens=NUM_NEW, attention_mask=torch.ones_like(prompt))
        got = out[0, len(ids):].tolist()
        check_greedy(report, "transformers", got, case)
        if case["prompt"] not in ours:
            continue
        answer = ours[case["prompt"]]["candidates"][0]
        report.check("transformers: text is that of `trimtab generate`",
                     tokenizer.decode(got, skip_special_tokens=True).strip() == answer["text"].strip())
        whole = torch.tensor([ids + answer["token_ids"]])
        with torch.no_grad():
            log_probs = model(whole).logits[0].double().log_softmax(-1)
        steps = range(len(ids) - 1, whole.shape[1] - 1)
        total = sum(log_probs[at, whole[0, at + 1]].item() for at in steps)
        error = abs(total - answer["reference_log_prob"])
        report.check("transformers: log-probability of the answer", error < 1e-3, f"{total:.6f}, off by {error:.1e}")


def check_llama_cpp(report, path, cases):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_gpu_layers = 0
    params.n_ctx = 512
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = 0
    params.cpuparams.n_threads = 2
    # No step may round below f32.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    for case in cases:
        for what, prompt in [("ids", case["prompt_ids"]), ("text", case["prompt"])]:
            answer = server.handle_completions({
                "prompt": prompt, "n_predict": NUM_NEW, "temperature": 0.0, "top_k": 1, "return_tokens": True,
                "cache_prompt": False, "verbose": True})
            got = answer.get("__verbose", answer).get("tokens", [])
            check_greedy(report, f"llama.cpp, prompt as {what}", got, case)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trimtab", default="trimtab")
    parser.add_argument("--only", choices=["transformers", "llama.cpp"])
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    report = Report()
    for model in args.models:
        print(model)
        cases = json.loads((GOLDEN / f"{model}.json").read_text())["cases"]
        ours = {}
        for case in cases:
            if "messages" not in case:
                ours[case["prompt"]] = run(
                    args.trimtab, "generate", case["prompt"], "--raw", "--model", model, "--decode", "greedy",
                    "--precision", "f32", "--max-new-tokens", str(NUM_NEW), "--json")
        with tempfile.TemporaryDirectory() as scratch:
            for form in ["hf", "gguf"]:
                out = pathlib.Path(scratch) / form
                exported = run(args.trimtab, "export", "model", model, "--format", form, "--out", str(out), "--json")
                if form == "hf" and args.only != "llama.cpp":
                    check_transformers(report, exported["path"], cases, ours)
                if form == "gguf" and args.only != "transformers":
                    check_llama_cpp(report, exported["path"], cases)
    print(f"{report.num_wrong} wrong" if report.num_wrong else "all the same")
    return 1 if report.num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
