"""Differences of methods at equal KL, paired by seed, from the table that `trimtab eval winrate --out DIR` leaves.

    python3 dev/paired_by_seed.py out/infalign/i1/winrate.csv bon:4 "rl exp:10" "rl identity" 1 2 3 4

Straight lines between a run's policies, the reference at 0.5 first; one difference a seed, their mean, and Student's 95%
interval for three seeds. Knows no policies.
"""

import collections
import csv
import math
import sys

T_OF_TWO = 4.302653


def win_rate(run, kl):
    points = sorted([(0.0, 0.5)] + run)
    for (start, low), (end, high) in zip(points, points[1:]):
        if start <= kl <= end:
            return low + (high - low) * (kl - start) / (end - start)
    return math.nan


def main(table, procedure, ours, theirs, *kls):
    runs = collections.defaultdict(list)
    for row in csv.DictReader(open(table, encoding="utf-8")):
        if row["procedure"] == procedure:
            runs[row["method"]].append((float(row["kl_nats"]), float(row["win_rate"])))
    for kl in map(float, kls):
        gaps = [win_rate(runs[f"{ours}, seed {s}"], kl) - win_rate(runs[f"{theirs}, seed {s}"], kl) for s in range(3)]
        mean = sum(gaps) / 3
        half = T_OF_TWO * math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 2 / 3)
        print(f"KL {kl:g}:", *(f"{gap:+.3f}" for gap in gaps), f"mean {mean:+.3f} [{mean - half:.3f}, {mean + half:.3f}]")


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
