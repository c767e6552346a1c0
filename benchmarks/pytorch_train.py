#!/usr/bin/env python3
"""A training step of the SmolLM2-135M decoder: Trimtab and PyTorch (transformers, f32) in turn on this machine.

Random weights of the model's shape, random tokens: speed does not depend on them. Two steps: SFT (next-token loss over
the response, AdamW) and RL (policy gradient with the exact per-token KL against a frozen reference, which is a second
forward pass). Prints tokens/s, peak memory and the ratios. Reads Trimtab through `trimtab bench train --json` alone.

    pip install torch transformers
    python3 benchmarks/pytorch_train.py --trimtab target/release/trimtab
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

# SmolLM2-135M.
SHAPE = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192, rope_theta=100000.0,
)


def main():
    args = parse_args()
    if args.child:
        print(json.dumps(pytorch(args)))
        return
    rows = [(method, depth) for method in ("sft", "rl") for depth in args.depth.split(",")]
    for method, depth in rows:
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(trimtab(args, method, depth))
            theirs.append(child(args, method, depth))
        show(method, depth, ours, theirs)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trimtab", default="target/release/trimtab")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3, help="timed steps after one that is not timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", default="lora,full")
    parser.add_argument("--child", choices=["sft", "rl"])
    return parser.parse_args()


def trimtab(args, method, depth):
    command = [args.trimtab, "bench", "train", "--model", args.model, "--method", method, "--depth", depth,
               "--batch", args.batch, "--seq", args.seq, "--steps", args.steps, "--threads", args.threads, "--json"]
    return json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)


def child(args, method, depth):
    command = [sys.executable, __file__, "--child", method, "--depth", depth, "--batch", args.batch, "--seq", args.seq,
               "--steps", args.steps, "--threads", args.threads]
    return json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)


def pytorch(args):
    """One process a measurement, so that its peak memory is its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    policy = LlamaForCausalLM(LlamaConfig(**SHAPE, attn_implementation="sdpa", use_cache=False)).float().train()
    if args.depth == "lora":
        add_lora(policy, rank=16)
    reference = None
    if args.child == "rl" and args.depth == "full":
        reference = LlamaForCausalLM(policy.config).float().eval().requires_grad_(False)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    tokens = torch.randint(0, SHAPE["vocab_size"], (args.batch, args.seq))
    seconds = []
    for _ in range(1 + args.steps):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = sft_loss(policy, tokens) if args.child == "sft" else rl_loss(policy, reference, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return {
        "tokens_per_s": args.batch * args.seq / statistics.median(seconds[1:]),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def add_lora(model, rank):
    """Adapters on every linear layer of the blocks; the rest is frozen. `enabled` turns them off for the reference."""
    import torch

    class Lora(torch.nn.Module):
        enabled = True

        def __init__(self, base):
            super().__init__()
            self.base = base
            self.a = torch.nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
            self.b = torch.nn.Parameter(torch.zeros(base.out_features, rank))

        def forward(self, x):
            out = self.base(x)
            return out + (x @ self.a.T) @ self.b.T if Lora.enabled else out

    model.requires_grad_(False)
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, child_module in list(part.named_children()):
                if isinstance(child_module, torch.nn.Linear):
                    setattr(part, name, Lora(child_module))
    model.lora = Lora


def sft_loss(policy, tokens):
    import torch

    logits = policy(tokens).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))


def rl_loss(policy, reference, tokens):
    """-advantage * log pi + beta * sum_z pi(z) log(pi(z) / pi_ref(z)), as Trimtab's step computes it."""
    import torch

    with torch.no_grad():
        if reference is None:
            policy.lora.enabled = False
            reference_log_probs = policy(tokens).logits[:, :-1].log_softmax(-1)
            policy.lora.enabled = True
        else:
            reference_log_probs = reference(tokens).logits[:, :-1].log_softmax(-1)
    log_probs = policy(tokens).logits[:, :-1].log_softmax(-1)
    taken = log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    kl = (log_probs.exp() * (log_probs - reference_log_probs)).sum(-1)
    advantages = torch.linspace(-1, 1, tokens.shape[0])[:, None]
    return (-advantages * taken + 0.1 * kl).mean()


def show(method, depth, ours, theirs):
    speed = [statistics.median(run["tokens_per_s"] for run in runs) for runs in (ours, theirs)]
    memory = [max(run["peak_rss_bytes"] for run in runs) / 1e9 for runs in (ours, theirs)]
    print(f"{method:3} {depth:4}  Trimtab {speed[0]:7.1f} tokens/s, {memory[0]:.2f} GB   PyTorch {speed[1]:7.1f} tokens/s, "
          f"{memory[1]:.2f} GB   speed {speed[0] / speed[1]:.2f}x, memory {memory[0] / memory[1]:.2f}x", flush=True)


if __name__ == "__main__":
    main()
