//! Which candidates must be drawn for a set of methods. Knows methods, not prompts or results.
//!
//! Candidate `i` of a prompt is the same whatever the number of candidates, so plain sampling and best-of-4 are the
//! first candidates of best-of-16 when all draw from one policy: drawn once, used by all. What scorers steer is drawn
//! for itself.

use trimtab_base::Seed;
use trimtab_decode::{DecodeSpec, Sampling};

use super::methods::Method;
use crate::steering::ScorerTerm;

/// Candidates drawn together for every prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    /// How they are drawn.
    pub(crate) decode: DecodeSpec,
    /// Seed of their random streams.
    pub(crate) seed: Seed,
    /// What steers them; empty for methods without scorers.
    pub(crate) scorers: Vec<ScorerTerm>,
    /// The value that must not fall.
    pub(crate) floor: Option<String>,
}

/// Everything to draw, and which group serves which method. Seeds come one after another, and of each the group of the
/// reference's answers first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    /// One a seed.
    pub(crate) seeds: Vec<SeedPlan>,
    /// Whether each seed answers only its share of the prompts.
    pub(crate) share_prompts: bool,
}

/// The groups of one seed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeedPlan {
    /// The seed.
    pub(crate) seed: u64,
    /// Index into the plan's groups of the reference's answers.
    pub(crate) reference_group: usize,
    /// Index into the plan's groups of each method, in the methods' order.
    pub(crate) group_of_method: Vec<usize>,
}

impl Plan {
    /// The fewest draws that serve all `methods` with each of `seeds`.
    pub(crate) fn new(methods: &[Method], reference_samples: usize, seeds: &[u64]) -> Self {
        let mut groups = Vec::new();
        let of_seed = |&seed: &u64| seed_plan(methods, reference_samples, seed, &mut groups);
        let seeds = seeds.iter().map(of_seed).collect();
        Self {
            groups,
            seeds,
            share_prompts: false,
        }
    }

    /// The same with prompts shared out among the seeds.
    pub(crate) fn sharing_prompts(mut self, share_prompts: bool) -> Self {
        self.share_prompts = share_prompts;
        self
    }

    /// The seed's place among the seeds whose group it is.
    fn seed_idx(&self, group: usize) -> usize {
        self.seeds.partition_point(|seed| seed.reference_group <= group) - 1
    }

    /// Whether `seed_idx` is to answer `prompt`.
    pub(crate) fn seed_answers(&self, seed_idx: usize, prompt: usize) -> bool {
        !self.share_prompts || prompt % self.seeds.len() == seed_idx
    }

    /// Every pair of group and prompt that is to be drawn, prompts first so that early results cover all groups.
    pub(crate) fn pairs(&self, num_prompts: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let all =
            (0..num_prompts).flat_map(|prompt| (0..self.groups.len()).map(move |group| (group, prompt)));
        all.filter(|&(group, prompt)| self.seed_answers(self.seed_idx(group), prompt))
    }
}

fn seed_plan(methods: &[Method], reference_samples: usize, seed: u64, groups: &mut Vec<Group>) -> SeedPlan {
    let reference_group = groups.len();
    groups.push(Group {
        decode: DecodeSpec::BestOfN {
            num_candidates: reference_samples,
            sampling: Sampling::REFERENCE,
        },
        seed: reference_seed(seed),
        scorers: Vec::new(),
        floor: None,
    });
    let group_of = |method: &Method| {
        let wanted = Group {
            decode: drawn_by(&method.decode),
            seed: Seed(seed),
            scorers: method.scorers_of(seed),
            floor: method.floor.clone(),
        };
        let of_methods = groups.iter_mut().enumerate().skip(reference_group + 1);
        let serving = of_methods
            .filter(|_| wanted.scorers.is_empty())
            .find_map(|(idx, group)| widen(&mut group.decode, &wanted.decode).then_some(idx));
        serving.unwrap_or_else(|| {
            groups.push(wanted);
            groups.len() - 1
        })
    };
    SeedPlan {
        seed,
        reference_group,
        group_of_method: methods.iter().map(group_of).collect(),
    }
}

/// Seed of the reference answers: another stream than the methods', so that no answer is compared with itself.
fn reference_seed(seed: u64) -> Seed {
    Seed(seed ^ 0x7265_6665_7265_6e63)
}

/// Whether a method is a choice among independent draws from one policy.
pub(crate) fn is_drawn(method: &DecodeSpec) -> bool {
    !matches!(method, DecodeSpec::Beam(_) | DecodeSpec::Greedy) && !method.needs_scorers()
}

/// What must be drawn for `method`: choices among draws differ only in the rule, which is applied afterwards.
fn drawn_by(method: &DecodeSpec) -> DecodeSpec {
    if is_drawn(method) {
        DecodeSpec::BestOfN {
            num_candidates: method.num_candidates(),
            sampling: method.sampling(),
        }
    } else {
        method.clone()
    }
}

/// Makes `group` serve `wanted` as well, if both draw from one policy.
fn widen(group: &mut DecodeSpec, wanted: &DecodeSpec) -> bool {
    match (group, wanted) {
        (
            DecodeSpec::BestOfN {
                num_candidates,
                sampling,
            },
            DecodeSpec::BestOfN {
                num_candidates: wanted,
                sampling: wanted_sampling,
            },
        ) if sampling == wanted_sampling => {
            *num_candidates = (*num_candidates).max(*wanted);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use trimtab_eval::ShownAs;

    use super::super::methods::{MethodEntry, expand};
    use super::*;

    fn plain(methods: &[&str]) -> Vec<Method> {
        let entries: Vec<MethodEntry> = methods
            .iter()
            .map(|method| MethodEntry::Text(method.parse().unwrap()))
            .collect();
        expand(&entries).unwrap()
    }

    fn steered(name: &str, decode: &str, scorer: &str) -> Method {
        Method {
            name: name.to_owned(),
            decode: decode.parse().unwrap(),
            scorers: vec![scorer.parse().unwrap()],
            floor: None,
            shown_as: ShownAs::default(),
        }
    }

    fn check(methods: &[&str], expect: &[&str], expect_groups: &[usize]) {
        let plan = Plan::new(&plain(methods), 4, &[7]);
        let groups: Vec<String> = plan.groups.iter().map(|group| group.decode.to_string()).collect();
        assert_eq!(
            (groups, plan.seeds[0].group_of_method.clone()),
            (
                expect.iter().map(|&s| s.to_owned()).collect(),
                expect_groups.to_vec()
            )
        );
    }

    #[test]
    fn methods_on_one_policy_share_their_draws() {
        check(&["sample", "bon:4", "bon:16"], &["bon:4", "bon:16"], &[1, 1, 1]);
        check(
            &["won:8", "majority:2", "sample"],
            &["bon:4", "bon:8"],
            &[1, 1, 1],
        );
        check(
            &["sample:t=0.5", "bon:4"],
            &["bon:4", "bon:n=1,t=0.5", "bon:4"],
            &[1, 2],
        );
        check(
            &["greedy", "beam:3", "sample"],
            &["bon:4", "greedy", "beam:3", "bon:1"],
            &[1, 2, 3],
        );
    }

    #[test]
    fn what_scorers_steer_is_drawn_for_itself() {
        let methods = [
            steered("a", "cd-block:k=4,m=8", "x"),
            steered("b", "cd-block:k=4,m=8", "y_s{seed}"),
            steered("c", "cd-token:weight=2", "x"),
        ];
        let plan = Plan::new(&methods, 4, &[7, 8]);
        let of_seed = |idx: usize| {
            (
                plan.seeds[idx].reference_group,
                plan.seeds[idx].group_of_method.clone(),
            )
        };
        assert_eq!((of_seed(0), of_seed(1)), ((0, vec![1, 2, 3]), (4, vec![5, 6, 7])));
        assert_eq!(plan.groups[2].scorers[0].place, "y_s7");
        assert_eq!(plan.groups[6].scorers[0].place, "y_s8");
    }

    #[test]
    fn every_seed_draws_for_itself() {
        let plan = Plan::new(&plain(&["sample", "bon:4"]), 2, &[7, 8]);
        let drawn: Vec<(String, u64)> = plan
            .groups
            .iter()
            .map(|group| (group.decode.to_string(), group.seed.0))
            .collect();
        assert_eq!(drawn[1], ("bon:4".to_owned(), 7));
        assert_eq!(drawn[3], ("bon:4".to_owned(), 8));
        assert_eq!(plan.seeds[1].group_of_method, [3, 3]);
    }

    #[test]
    fn seeds_share_prompts_out_where_asked() {
        let plan = Plan::new(&plain(&["sample", "greedy"]), 2, &[7, 8]);
        assert_eq!(plan.pairs(3).count(), 18);
        // Groups 0 to 2 are the first seed's.
        let shared: Vec<_> = plan.sharing_prompts(true).pairs(3).collect();
        assert_eq!(
            shared,
            [
                (0, 0),
                (1, 0),
                (2, 0),
                (3, 1),
                (4, 1),
                (5, 1),
                (0, 2),
                (1, 2),
                (2, 2)
            ]
        );
    }

    #[test]
    fn reference_answers_have_coins_of_their_own() {
        let plan = Plan::new(&plain(&["sample"]), 4, &[7, 8]);
        let seeds: std::collections::BTreeSet<u64> = plan.groups.iter().map(|group| group.seed.0).collect();
        assert_eq!(seeds.len(), 4);
    }
}
