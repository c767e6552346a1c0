//! Naming models.
