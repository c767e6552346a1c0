//! Which requests can run at all, and when one may start. Knows worst cases, no batches.

use trimtab_decode::BranchId;
use trimtab_model::ModelError;

use super::Engine;
use crate::active::{Active, Announced};
use crate::error::EngineError;
use crate::request::{Request, Span, Usage};

impl Engine {
    /// The request with the worst case that is set aside for it.
    pub(super) fn admissible(&self, request: Request) -> Result<Active, EngineError> {
        let hidden_len = self.backend.hidden_len();
        for span in &request.prompt.spans {
            self.check_span(span)?;
        }
        let prompt = request.prompt.num_positions(hidden_len);
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        let (new_tokens, context) = (request.decoder.max_new_tokens(), self.backend.context_len());
        // Nobody asks what follows the last new token, so it is never stored.
        let stored_tokens = new_tokens.saturating_sub(1);
        if prompt.saturating_add(stored_tokens) > context {
            return Err(EngineError::PromptTooLong {
                prompt,
                new_tokens,
                context,
            });
        }
        let block_len = self.backend.block_len();
        let branches = request.decoder.max_live_branches();
        // One more block per branch, for its copy of the prompt's last block.
        let per_branch = stored_tokens.div_ceil(block_len) + 1;
        let needed = branches
            .saturating_mul(per_branch)
            .saturating_add(prompt.div_ceil(block_len));
        let available = self.blocks.num_blocks();
        if needed > available {
            return Err(EngineError::OverBudget {
                needed,
                branches,
                available,
            });
        }
        let announced = Announced {
            prompt_positions: prompt,
            new_tokens,
            branches,
            blocks: needed,
        };
        let usage = Usage {
            prompt_positions: prompt as u64,
            ..Usage::default()
        };
        Ok(Active::new(request, hidden_len, announced, usage))
    }

    fn check_span(&self, span: &Span) -> Result<(), EngineError> {
        let (hidden_len, vocab_len) = (self.backend.hidden_len(), self.backend.vocab_len());
        match span {
            Span::Embeddings(rows) if !rows.len().is_multiple_of(hidden_len) => {
                Err(EngineError::RaggedEmbeddings {
                    len: rows.len(),
                    hidden_len,
                })
            }
            Span::Embeddings(_) => Ok(()),
            Span::Tokens(tokens) => match tokens.iter().find(|token| token.index() >= vocab_len) {
                Some(bad) => Err(ModelError::TokenOutOfRange {
                    token: bad.0,
                    vocab_len,
                }
                .into()),
                None => Ok(()),
            },
        }
    }

    /// Starts queued requests, in order, while their worst cases fit together.
    pub(super) fn admit(&mut self) {
        while let Some((_, next)) = self.queue.front() {
            if self.reserved_blocks + next.announced.blocks > self.blocks.num_blocks() {
                return;
            }
            let Some((id, mut active)) = self.queue.pop_front() else {
                return;
            };
            self.reserved_blocks += active.announced.blocks;
            if self.config.prefix_cache {
                self.take_from_cache(&mut active);
            }
            self.active.insert(id, active);
        }
    }

    /// Gives the root the cached blocks of its prompt; at least one position is left to run, for its logits.
    fn take_from_cache(&mut self, active: &mut Active) {
        let block_len = self.backend.block_len();
        let usable = active
            .leading_tokens
            .len()
            .min(active.announced.prompt_positions - 1);
        let found = self
            .cache
            .look_up(&active.leading_tokens[..usable], block_len, &mut self.blocks);
        if let Some(root) = active.branches.get_mut(&BranchId::ROOT) {
            root.num_stored = found.len() * block_len;
            root.pending.drain(..root.num_stored);
            active.usage.cached_positions = root.num_stored as u64;
            root.blocks = found;
        } else {
            for block in found {
                self.blocks.release(block);
            }
        }
    }
}
