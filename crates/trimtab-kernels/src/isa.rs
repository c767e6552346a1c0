//! Which instructions this machine has.

use std::sync::OnceLock;

/// An instruction set that the kernels are written for, from plain Rust to tile instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler makes of plain Rust for the build's target; the reference of all others.
    Portable,
    /// `AArch64` with the 8-bit dot product extension.
    NeonDot,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI.
    Avx512Vnni,
    /// [`Self::Avx512Vnni`] with AMX tiles of 8-bit integers for batches.
    Amx,
}

impl Isa {
    const ALL: [Self; 5] = [
        Self::Portable,
        Self::NeonDot,
        Self::Avx2,
        Self::Avx512Vnni,
        Self::Amx,
    ];

    /// The best instruction set of this machine; detected once.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            Self::available()
                .pop()
                .expect("the portable path is always available")
        })
    }

    /// All instruction sets of this machine, the best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// True if this machine and its system can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => has_avx512_vnni(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => has_avx512_vnni() && crate::gemm::amx_is_available(),
            #[allow(unreachable_patterns, reason = "which arms exist depends on the target")]
            _ => false,
        }
    }

    /// A short name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::NeonDot => "neon-dot",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
        }
    }
}

/// The name of the instruction set chosen on this machine.
pub fn isa_name() -> &'static str {
    Isa::detect().name()
}

/// Runs one of three compilations of the same `#[inline(always)]` function.
macro_rules! for_isa {
    ($isa:expr, $function:ident ( $($arg:ident : $type:ty),* ) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn avx2($($arg: $type),*) $(-> $result)? { $function($($arg),*) }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512($($arg: $type),*) $(-> $result)? { $function($($arg),*) }
        match $isa {
            // SAFETY: callers hold an `Isa` only after checking that it is available.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512Vnni | $crate::isa::Isa::Amx => unsafe { avx512($($arg),*) },
            _ => $function($($arg),*),
        }
    }};
}
pub(crate) use for_isa;

#[cfg(target_arch = "x86_64")]
fn has_avx512_vnni() -> bool {
    Isa::Avx2.is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}
