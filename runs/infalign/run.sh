#!/usr/bin/env bash
# The experiments of docs/experiments/infalign.md, from rewards to reports, below out/infalign. Every step goes on where it
# was stopped, and what is there already is not made again.
#
#   runs/infalign/run.sh i1        # or i1_judged, i2, i3, i4, i5; no argument: i1
#   SEEDS="0 1 2" runs/infalign/run.sh i1
#
# i1, i3, i4 and i5: stories15M and a sentiment reward on its own states, learned from labelled reviews, see
# imdb_sentiment_stories.toml. Policies are trained on 80 openings; 40 others measure them.
# i2: SmolLM2-135M with adapters and a harmlessness reward from HH-RLHF, see runs/hh_reward.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
trimtab="${TRIMTAB:-${CARGO_TARGET_DIR:-target}/release/trimtab}"
hh="${HH:-../shared/data/hh-rlhf/harmless-base.test.jsonl.gz}"
here=runs/infalign
out=out/infalign
seeds="${SEEDS:-0}"

story_reward() {
  "$trimtab" train reward "$here/imdb_sentiment_stories.toml" --out "$out/sentiment_stories"
}

align() { # configurations
  for name in "$@"; do
    for seed in $seeds; do
      "$trimtab" train align "$here/$name.toml" --seed "$seed" --out "$out/${name}_$seed"
    done
  done
}

# The policy at the end and those that were kept on the way, of every seed.
policies() { # configurations
  for name in "$@"; do
    for seed in $seeds; do
      find "$out/${name}_$seed" -name policy_card.json -printf '%h\n' | sort
    done
  done
}

stories() { # out, samples of a policy, then configurations
  local folder="$1" samples="$2" policies
  shift 2
  mapfile -t policies < <(policies "$@")
  "$trimtab" eval winrate --policy "${policies[@]}" --reference stories15m --procedure bon:4,won:4,sample \
    --reward "head:$out/sentiment_stories" --judge length --prompts "$here/story_openings.txt" --skip 80 --raw \
    --max-new-tokens 32 --per-prompt "$samples" --reference-per-prompt 512 --kl-per-prompt 4 --out "$folder"
}

i1() {
  # Differences are from the first.
  local runs=(i1_identity i1_raw i1_ctrl_bon4 i1_ctrl_won4 i1_dpo i1_ipo i1_bon_distillation i1_bonbon)
  story_reward
  align "${runs[@]}"
  stories "$out/i1" 128 "${runs[@]}"
}

# The policies of I1 by a judge that training never saw, on another model's states: the one that
# runs/controlled_decoding/run.sh e2 trains first. After i1.
i1_judged() {
  local policies
  mapfile -t policies < <(ls -d "$out"/i1_{identity,raw,ctrl_bon4,ctrl_won4,dpo}_[0-9]/kl_[123])
  "$trimtab" eval winrate --policy "${policies[@]}" --reference stories15m --procedure bon:4,won:4,sample \
    --reward "head:$out/sentiment_stories" --judge head:out/cd/sentiment@smollm2-135m-instruct \
    --prompts "$here/story_openings.txt" --skip 80 --raw --max-new-tokens 32 --per-prompt 16 --reference-per-prompt 64 \
    --kl-per-prompt 4 --out "$out/i1_judged"
}

i2() {
  local runs=(i2_raw i2_identity i2_ctrl_bon4 i2_ctrl_won4 i2_bon_distillation) policies
  "$trimtab" train reward runs/hh_reward.toml --out "$out/hh_reward"
  align "${runs[@]}"
  mapfile -t policies < <(policies "${runs[@]}")
  "$trimtab" eval winrate --policy "${policies[@]}" --reference smollm2-135m-instruct --procedure bon:4,won:4,sample \
    --reward "head:$out/hh_reward" --judge length --prompts "$hh" --skip 1800 --num-prompts 64 --drop-long \
    --system "Answer in one short sentence." --stop $'\n' --max-new-tokens 48 --per-prompt 16 --kl-per-prompt 4 --out "$out/i2"
}

i3() {
  local runs=(i3_hacked_raw i3_hacked_identity) policies
  story_reward
  "$trimtab" train reward "$here/i3_hacked_reward.toml" --out "$out/sentiment_hacked"
  align "${runs[@]}"
  mapfile -t policies < <(policies "${runs[@]}")
  # Procedures choose by the reward that is hacked; what is true is what the clean one says of the same answers.
  "$trimtab" eval winrate --policy "${policies[@]}" --reference stories15m --procedure bon:4,won:4,sample \
    --reward "head:$out/sentiment_hacked" --judge "head:$out/sentiment_stories" --judge "keywords:loved to play" \
    --prompts "$here/story_openings.txt" --skip 80 --raw --max-new-tokens 32 --per-prompt 32 \
    --reference-per-prompt 512 --out "$out/i3"
}

i4() {
  story_reward
  align i4_k4 i4_k16 i1_ctrl_bon4 # the last is that of 100 samples
  stories "$out/i4" 32 i4_k4 i4_k16 i1_ctrl_bon4
}

# A scorer of the reference steers policies, which meet the reference as it is: KLs add, CD App. B.
i5() {
  local policies
  story_reward
  align i1_ctrl_bon4 i1_dpo
  "$trimtab" train scorer "$here/i5_scorer.toml" --out "$out/i5_scorer"
  policies=(stories15m "$out"/i1_{ctrl_bon4,dpo}_0/kl_{0.5,1,2})
  "$trimtab" eval winrate --policy "${policies[@]}" --reference stories15m --apply-to policy \
    --procedure cd-block:k=2,m=8 --procedure cd-block:k=4,m=8 --procedure bon:4 --procedure sample \
    --scorer "$out/i5_scorer" --reward "head:$out/sentiment_stories" --prompts "$here/story_openings.txt" --skip 80 --raw \
    --max-new-tokens 32 --per-prompt 32 --reference-per-prompt 512 --steered-per-prompt 16 --out "$out/i5"
}

mkdir -p "$out"
for experiment in "${@:-i1}"; do
  "$experiment"
done
