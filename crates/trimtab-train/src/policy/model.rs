//! What a policy is to a loss: states at response positions and an output head. Knows no loss.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use super::pieces::Piece;
use crate::decoder::Decoder;

/// A model of next tokens.
pub trait PolicyModule: Module {
    /// States that predict the response tokens of a piece, in the order of its rows; on the tape where anything below is
    /// trained. `[positions, hidden]`
    fn states(&self, piece: &Piece) -> Tensor<2>;

    /// Logits are states times this, transposed. `[vocab, hidden]`
    fn head(&self) -> Tensor<2>;
}

impl PolicyModule for Decoder {
    /// # Panics
    /// If a response was not checked against the decoder's configuration.
    fn states(&self, piece: &Piece) -> Tensor<2> {
        let of_bucket = |bucket: &Vec<usize>| {
            let (batch, places) = piece.bucket(bucket);
            let hidden = self
                .forward(&batch)
                .expect("responses were checked against the configuration"); // [batch, seq, hidden]
            let [num_sequences, seq, hidden_len] = hidden.dims();
            let len = places.len();
            let places = Tensor::<1, Int>::from_data(TensorData::new(places, [len]), self.device());
            hidden
                .reshape([num_sequences * seq, hidden_len])
                .select(0, places)
        };
        let mut states: Vec<Tensor<2>> = piece.buckets.iter().map(of_bucket).collect();
        match states.len() {
            1 => states.remove(0),
            _ => Tensor::cat(states, 0),
        }
    }

    fn head(&self) -> Tensor<2> {
        self.head_matrix()
            .expect("policies are loaded with their output head")
    }
}
