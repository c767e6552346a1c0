#!/usr/bin/env bash
# The experiments of docs/experiments/controlled_decoding.md, from prompts to reports, below out/cd. Every step goes on
# where it was stopped, and what is there already is not made again.
#
#   runs/controlled_decoding/run.sh e1        # or e2 to e5, e1_small, e5_small; no argument: e1
#
# Prompts: HH-RLHF harmless-base, test split, first turns (see ../shared/data in the configurations). Rollouts are
# for the first 600 distinct prompts; 1,001 to 1,100 are answered. e2 and e3 need labelled reviews, see
# dev/review_pairs.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
trimtab="${TRIMTAB:-${CARGO_TARGET_DIR:-target}/release/trimtab}"
hh="${HH:-../shared/data/hh-rlhf/harmless-base.test.jsonl.gz}"
reviews="${REVIEWS:-../imdb/package/reviews.json}"
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

# The reward is a classifier's, and scorers foresee it.
sentiment() {
  rollouts
  [ -e out/cd/sentiment_pairs.jsonl ] || python3 dev/review_pairs.py "$reviews" out/cd/sentiment_pairs.jsonl
  "$trimtab" train reward "$here/sentiment.toml" --out out/cd/sentiment
  # Scored once, since every training would score them again.
  "$trimtab" rollout --responses out/cd/rollouts --system "${short[1]}" --reward head:out/cd/sentiment \
    --out out/cd/rollouts_sentiment
  scorers sentiment_fudge
  scorers sentiment_cdq
}

e1() {
  length
  scorers length_cdq
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

e2() {
  sentiment
  "$trimtab" frontier "$here/e2_sentiment.toml" --out out/cd/e2
}

e3() {
  sentiment
  length
  "$trimtab" frontier "$here/e3_two_rewards.toml" --out out/cd/e3
}

e4() {
  length
  "$trimtab" frontier "$here/e4_transfer.toml" --out out/cd/e4
}

e5() {
  length
  "$trimtab" frontier "$here/e5_block_length.toml" --out out/cd/e5
}

mkdir -p out/cd
for experiment in "${@:-e1}"; do
  "$experiment"
done
