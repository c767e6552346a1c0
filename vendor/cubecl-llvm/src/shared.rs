//! What a device may advertise when LLVM compiles for it, which it never does.

/// As the original's path.
pub mod lowered_features {
    use cubecl_core::ir::DeviceProperties;

    /// What would be compiled for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum GpuTarget {
        /// NVIDIA's virtual machine code.
        Nvptx,
    }

    /// Leaves everything as it is: the C++ compiler honours all of it.
    pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
}
