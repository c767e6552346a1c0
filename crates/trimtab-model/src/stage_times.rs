//! Where the time of forward passes goes. Knows durations, not how they are shown.

use std::time::Duration;

/// Wall time per stage, summed over passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Embedding look-ups.
    pub embed: Duration,
    /// All RMS norms and residual sums.
    pub norm: Duration,
    /// Query, key and value projections.
    pub qkv: Duration,
    /// Rotary encoding and writing keys and values.
    pub rope_and_store: Duration,
    /// Attention proper.
    pub attention: Duration,
    /// Attention output projections.
    pub attention_output: Duration,
    /// Gate and up projections.
    pub gate_up: Duration,
    /// Gate activation.
    pub activation: Duration,
    /// Down projections.
    pub down: Duration,
    /// Output head.
    pub head: Duration,
}

impl StageTimes {
    /// Stages by name, in the order of a pass.
    pub fn by_name(&self) -> [(&'static str, Duration); 10] {
        [
            ("embed", self.embed),
            ("norm", self.norm),
            ("qkv", self.qkv),
            ("rope_and_store", self.rope_and_store),
            ("attention", self.attention),
            ("attention_output", self.attention_output),
            ("gate_up", self.gate_up),
            ("activation", self.activation),
            ("down", self.down),
            ("head", self.head),
        ]
    }

    /// Sums, stage by stage.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a + b)
    }

    /// What came on top of `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combine(earlier, Duration::saturating_sub)
    }

    fn combine(&self, other: &Self, with: impl Fn(Duration, Duration) -> Duration) -> Self {
        Self {
            embed: with(self.embed, other.embed),
            norm: with(self.norm, other.norm),
            qkv: with(self.qkv, other.qkv),
            rope_and_store: with(self.rope_and_store, other.rope_and_store),
            attention: with(self.attention, other.attention),
            attention_output: with(self.attention_output, other.attention_output),
            gate_up: with(self.gate_up, other.gate_up),
            activation: with(self.activation, other.activation),
            down: with(self.down, other.down),
            head: with(self.head, other.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_undoes_plus() {
        let second = Duration::from_secs(1);
        let a = StageTimes {
            qkv: second,
            head: 2 * second,
            ..StageTimes::default()
        };
        let b = StageTimes {
            qkv: 3 * second,
            embed: second,
            ..StageTimes::default()
        };
        assert_eq!(a.plus(&b).since(&b), a);
        assert_eq!(a.plus(&b).qkv, 4 * second);
    }
}
