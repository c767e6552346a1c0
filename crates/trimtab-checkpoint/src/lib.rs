//! Part of Trimtab.
