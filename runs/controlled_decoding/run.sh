#!/usr/bin/env bash
# The experiments of docs/experiments/controlled_decoding.md, from prompts to reports, below out/cd. Every step goes on
# where it was stopped, and what is there already is not made again.
#
#   runs/controlled_decoding/run.sh e1        # or e1_small, e5_small; no argument: e1
#
# Prompts: HH-RLHF harmless-base, test split, first turns (see ../shared/data in the configurations). Rollouts are
# for the first 600 distinct prompts; 1,001 to 1,100 are answered.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
trimtab="${TRIMTAB:-${CARGO_TARGET_DIR:-target}/release/trimtab}"
hh="${HH:-../shared/data/hh-rlhf/harmless-base.test.jsonl.gz}"
here=runs/controlled_decoding
short=(--system "Answer in one short sentence." --stop $'\n' --max-new-tokens 384)

rollouts() {
  "$trimtab" rollout --prompts "$hh" --num-prompts 600 --per-prompt 4 "${short[@]}" --reward length --out out/cd/rollouts
}

# A scorer for each seed, so that intervals over seeds hold the spread of training as well.
scorers() { # configuration
  for seed in 0 1 2; do
    "$trimtab" train scorer "$here/$1.toml" --seed "$seed" --out "out/cd/$1_$seed"
  done
}

length() {
  rollouts
  scorers length_fudge
  scorers length_cdq_lambda
}

e1() {
  length
  "$trimtab" frontier "$here/e1_length.toml" --out out/cd/e1
}

e1_small() {
  length
  "$trimtab" frontier "$here/e1_small.toml" --out out/cd/e1_small
}

e5_small() {
  length
  "$trimtab" frontier "$here/e5_small.toml" --out out/cd/e5_small
}

mkdir -p out/cd
for experiment in "${@:-e1}"; do
  "$experiment"
done
