//! Versions of PTX, of which none is emitted.

/// As the original's path.
pub mod ptx_version {
    use std::fmt;

    /// A version of PTX; there is none.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum PtxVersion {}

    impl PtxVersion {
        /// The newest that a driver loads: none, which only the compiler that is not here would read.
        pub fn for_driver(_driver: i32) -> Option<Self> {
            None
        }
    }

    impl fmt::Display for PtxVersion {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match *self {}
        }
    }
}
