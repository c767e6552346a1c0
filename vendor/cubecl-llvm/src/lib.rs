//! The part of `cubecl-llvm`'s interface that `cubecl-cuda` names, without LLVM behind it. Knows no kernel.
//!
//! `cubecl-cuda` always compiles both of its compilers, of which one is run: CUDA C++ through NVRTC where its feature
//! `cpp` is on, as it is here, LLVM otherwise. The latter's build script downloads a build of LLVM, which is more than all
//! the rest of this workspace, fails without a network, and would do nothing. So the workspace's manifest puts this crate
//! in its place. Every kernel that is asked of it is refused with a reason.

pub mod nvptx;
pub mod shared;

use std::ffi::c_char;
use std::fmt;

use cubecl_core::Compiler;
use cubecl_core::ir::amd::GfxArch;
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::CompilationError;
use cubecl_runtime::kernel::BufferIOAttr;

use nvptx::ptx_version::PtxVersion;

/// What would be compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA's virtual machine code.
    Nvptx,
}

/// Refuses every kernel.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// What it does not compile for.
    pub target: LlvmTarget,
}

/// As the original's; nothing reads them.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture.
    pub arch: Option<GfxArch>,
    /// NVIDIA architecture.
    pub sm_arch: Option<SmArch>,
    /// Version of PTX to emit.
    pub ptx_version: Option<PtxVersion>,
    /// Whether scalars are parameters of the kernel.
    pub grid_constants: bool,
}

/// A compiled module; there is none.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX, ended by a NUL.
    pub ptx: Vec<c_char>,
    /// IR for logs.
    pub ir: String,
    /// Shared memory of a launch, in bytes.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// What compiling gives; it gives none.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// PTX.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NvptxCode(module) = self;
        f.write_str(&module.ir)
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "built without LLVM: kernels are compiled as CUDA C++ (feature `cpp` of cubecl-cuda)".to_owned(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
