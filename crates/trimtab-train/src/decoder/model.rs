//! The decoder: embedding, layers, final norm, output head. Knows no objective and no file.

use burn::module::Module;
use burn::tensor::module::embedding;
use burn::tensor::{Device, Tensor};
use trimtab_model::ModelConfig;

use super::batch::TokenBatch;
use super::error::DecoderError;
use super::layer::DecoderLayer;
use super::norm::RmsNorm;
use super::positions::SpanTables;
use super::weight::Weight;

/// A decoder of any family that the engine runs, on the tape.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[vocab, hidden]`
    pub(super) embedding: Weight<2>,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) final_norm: RmsNorm,
    /// `[vocab, hidden]`; absent where tied, and where nobody asks for logits.
    pub(super) head: Option<Weight<2>>,
    #[module(skip)]
    pub(super) config: ModelConfig,
    #[module(skip)]
    pub(super) device: Device,
}

impl Decoder {
    /// What the weights are.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Hidden states after the final norm, as the output head sees them; those at padding mean nothing.
    /// `[batch, seq, hidden]`
    ///
    /// # Errors
    /// A token outside the vocabulary, a sequence longer than the context.
    pub fn forward(&self, tokens: &TokenBatch) -> Result<Tensor<3>, DecoderError> {
        self.check(tokens)?;
        let (batch, seq, hidden_len) = (tokens.batch(), tokens.seq(), self.config.hidden_len);
        let tables = SpanTables::of_model(&self.config, seq, &self.device);
        let embedded = embedding(self.embedding.value(), tokens.to_tensor(&self.device)); // [batch, seq, hidden]
        let mut residual = embedded.reshape([batch * seq, hidden_len]);
        if self.config.embedding_scale != 1.0 {
            residual = residual * self.config.embedding_scale;
        }
        for (layer, span) in self.layers.iter().zip(&self.config.layer_spans) {
            let shared = tables
                .iter()
                .find(|table| table.span == *span)
                .expect("tables cover every span of the configuration");
            residual = layer.forward(residual, batch, shared);
        }
        Ok(self
            .final_norm
            .forward(residual)
            .reshape([batch, seq, hidden_len]))
    }

    /// Next-token logits of hidden states. `[rows, hidden]` to `[rows, vocab]`
    ///
    /// # Errors
    /// The head is not tied and was not loaded.
    pub fn logits(&self, hidden: Tensor<2>) -> Result<Tensor<2>, DecoderError> {
        Ok(hidden.matmul(self.head_matrix()?.transpose()))
    }

    /// The output head: logits are hidden states times its transpose. `[vocab, hidden]`
    ///
    /// # Errors
    /// The head is not tied and was not loaded.
    pub fn head_matrix(&self) -> Result<Tensor<2>, DecoderError> {
        match (&self.head, self.config.tied_head) {
            (Some(head), _) => Ok(head.value()),
            (None, true) => Ok(self.embedding.value()),
            (None, false) => Err(DecoderError::NoHead),
        }
    }

    /// The same decoder without its adapters: the base, whose frozen weights both share.
    #[must_use]
    pub fn without_adapters(&self) -> Self {
        let mut base = self.clone();
        for layer in &mut base.layers {
            let (attention, ffn) = (&mut layer.attention, &mut layer.ffn);
            for linear in [
                &mut attention.query,
                &mut attention.key,
                &mut attention.value,
                &mut attention.output,
                &mut ffn.gate,
                &mut ffn.up,
                &mut ffn.down,
            ] {
                linear.adapter = None;
            }
        }
        base
    }

    fn check(&self, tokens: &TokenBatch) -> Result<(), DecoderError> {
        let (context_len, vocab_len) = (self.config.context_len, self.config.vocab_len);
        if tokens.seq() > context_len {
            return Err(DecoderError::TooLong {
                len: tokens.seq(),
                context_len,
            });
        }
        match tokens.token_ids().iter().find(|&&id| id as usize >= vocab_len) {
            Some(&token) => Err(DecoderError::TokenOutOfRange { token, vocab_len }),
            None => Ok(()),
        }
    }
}
