//! AMX: a tile register holds 16 rows of 64 bytes, and one instruction multiplies two of them.
//!
//! Rust's intrinsics for AMX are not stable, so this is inline assembly. The packed layout of integer weights, blocks of
//! 16 outputs x 4 inputs, is the layout that the instruction wants of its second factor.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::{Int8Kernel, K_STEP, PANEL, Peak, Sums, TileArgs};

/// Tiles of 32 rows x 2 panels, for batches.
pub(super) const INT8: Int8Kernel = Int8Kernel {
    tile: tile_32x2,
    tile_rows: 32,
    tile_panels: 2,
    enter: configure,
    leave: release,
};

/// Tiles of 16 rows x 4 panels, for what remains and for small batches.
pub(super) const INT8_FEW_ROWS: Int8Kernel = Int8Kernel {
    tile: tile_16x4,
    tile_rows: 16,
    tile_panels: 4,
    enter: configure,
    leave: release,
};

pub(super) const INT8_PEAK: Peak = (peak, 4 * 2 * TILE_ROWS * PANEL * K_STEP);

/// Rows of a tile register: activations are read in groups of this many, so their memory is padded to it.
pub(in super::super) const TILE_ROWS: usize = 16;

/// True if the processor has 8-bit tiles and the system lets this process use them; asked once.
pub(in super::super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && request_permission())
}

fn has_instructions() -> bool {
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const OSXSAVE: u32 = 1 << 27;
    /// Tile configuration and tile data in the extended state that the system saves.
    const XCR0_TILES: u64 = 3 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    // SAFETY: `OSXSAVE` says that `xgetbv` exists and is enabled.
    let enabled = unsafe { read_xcr0() };
    features & AMX_TILE != 0 && features & AMX_INT8 != 0 && enabled & XCR0_TILES == XCR0_TILES
}

#[target_feature(enable = "xsave")]
unsafe fn read_xcr0() -> u64 {
    // SAFETY: the caller's contract.
    unsafe { _xgetbv(0) }
}

/// Linux gives the large tile state only to processes that ask (`arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`);
/// the permission holds for all threads.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const SYS_ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the call takes two integers and changes nothing but this process's permission; a system call
    // clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// The operand of `ldtilecfg`: eight tiles of 16 rows x 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

unsafe fn configure() {
    // SAFETY: AMX is available by the caller's contract; the operand is a valid 64-byte configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, preserves_flags, readonly)) };
}

/// Returns the tiles to their initial state, which the system need not save when it switches threads.
unsafe fn release() {
    // SAFETY: AMX is available by the caller's contract.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// Bytes between rows of a weight block.
const WEIGHT_ROW_BYTES: usize = 64;

/// Asks for the block of weights at `{ahead}`.
macro_rules! prefetch_block {
    ($($offset:literal)*) => { concat!($("prefetcht1 [{ahead} + ", $offset, "]\n"),*) };
}

/// Where the weights of the next tile start, or null to ask for nothing.
fn ahead(args: &TileArgs<u8, i8>) -> *const i8 {
    let next = args.weights.wrapping_add(args.num_panels * args.panel_stride);
    if args.prefetch { next } else { std::ptr::null() }
}

/// Up to 32 rows times up to two panels.
unsafe fn tile_32x2(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    if args.rows <= TILE_ROWS || args.num_panels != 2 {
        // SAFETY: the caller's contract; sixteen rows at a time.
        unsafe { by_single_tiles(args, sums) };
        return;
    }
    let sum_row_bytes = 2 * PANEL * size_of::<i32>();
    // SAFETY: tiles are configured between `enter` and `leave`. Loads read 32 rows of `k_len` activations (memory is
    // padded to whole tiles) and `k_len / 64` blocks of each panel; stores fill 32 x 32 sums, the whole buffer.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {act_stride}*1]",
            "tileloadd tmm6, [{w0} + {w_stride}*1]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {w_stride}*1]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {act_stride}*1]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "test {ahead}, {ahead}",
            "jz 3f",
            prefetch_block!(0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960),
            prefetch_block!(1024 1088 1152 1216 1280 1344 1408 1472 1536 1600 1664 1728 1792 1856 1920 1984),
            "add {ahead}, 2048",
            "3:",
            "add {a0}, 64", "add {a1}, 64", "add {w0}, 1024", "add {w1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{s0} + {s_stride}*1], tmm0",
            "tilestored [{s0} + {s_stride}*1 + 64], tmm1",
            "tilestored [{s1} + {s_stride}*1], tmm2",
            "tilestored [{s1} + {s_stride}*1 + 64], tmm3",
            a0 = inout(reg) args.acts => _,
            a1 = inout(reg) args.acts.add(TILE_ROWS * args.act_stride) => _,
            w0 = inout(reg) args.weights => _,
            w1 = inout(reg) args.weights.add(args.panel_stride) => _,
            act_stride = in(reg) args.act_stride,
            w_stride = in(reg) WEIGHT_ROW_BYTES,
            ahead = inout(reg) ahead(args) => _,
            steps = inout(reg) args.k_len / K_STEP => _,
            s0 = in(reg) sums.0.as_mut_ptr(),
            s1 = in(reg) sums.0.as_mut_ptr().add(TILE_ROWS * 2 * PANEL),
            s_stride = in(reg) sum_row_bytes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Up to 16 rows times up to four panels. Prefetches were tried here and cost more than they brought: with so few
/// rows the tile loads are themselves the stream that the hardware's prefetchers follow.
unsafe fn tile_16x4(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    if args.num_panels != 4 {
        // SAFETY: the caller's contract.
        unsafe { by_single_tiles(args, sums) };
        return;
    }
    let sum_row_bytes = 4 * PANEL * size_of::<i32>();
    // SAFETY: as in `tile_32x2`, with 16 rows and four panels; stores fill 16 x 64 sums, the whole buffer.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {act_stride}*1]",
            "tileloadd tmm5, [{w0} + {w_stride}*1]",
            "tdpbusd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{w1} + {w_stride}*1]",
            "tdpbusd tmm1, tmm4, tmm6",
            "tileloadd tmm7, [{w2} + {w_stride}*1]",
            "tdpbusd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{w3} + {w_stride}*1]",
            "tdpbusd tmm3, tmm4, tmm5",
            "add {a}, 64", "add {w0}, 1024", "add {w1}, 1024", "add {w2}, 1024", "add {w3}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{s} + {s_stride}*1], tmm0",
            "tilestored [{s} + {s_stride}*1 + 64], tmm1",
            "tilestored [{s} + {s_stride}*1 + 128], tmm2",
            "tilestored [{s} + {s_stride}*1 + 192], tmm3",
            a = inout(reg) args.acts => _,
            w0 = inout(reg) args.weights => _,
            w1 = inout(reg) args.weights.add(args.panel_stride) => _,
            w2 = inout(reg) args.weights.add(2 * args.panel_stride) => _,
            w3 = inout(reg) args.weights.add(3 * args.panel_stride) => _,
            act_stride = in(reg) args.act_stride,
            w_stride = in(reg) WEIGHT_ROW_BYTES,
            steps = inout(reg) args.k_len / K_STEP => _,
            s = in(reg) sums.0.as_mut_ptr(),
            s_stride = in(reg) sum_row_bytes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Any tile, one register of sums at a time: the ragged edges.
unsafe fn by_single_tiles(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    let width = args.num_panels * PANEL;
    assert!(args.rows.next_multiple_of(TILE_ROWS) * width <= sums.0.len());
    for row in (0..args.rows).step_by(TILE_ROWS) {
        for panel in 0..args.num_panels {
            // SAFETY: tiles are configured; loads stay within the operands described by `args`, padded to whole
            // tiles of rows; the store stays within `sums` by the assertion.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "2:",
                    "tileloadd tmm4, [{a} + {act_stride}*1]",
                    "tileloadd tmm5, [{w} + {w_stride}*1]",
                    "tdpbusd tmm0, tmm4, tmm5",
                    "add {a}, 64", "add {w}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{s} + {s_stride}*1], tmm0",
                    a = inout(reg) args.acts.add(row * args.act_stride) => _,
                    w = inout(reg) args.weights.add(panel * args.panel_stride) => _,
                    act_stride = in(reg) args.act_stride,
                    w_stride = in(reg) WEIGHT_ROW_BYTES,
                    steps = inout(reg) args.k_len / K_STEP => _,
                    s = in(reg) sums.0.as_mut_ptr().add(row * width + panel * PANEL),
                    s_stride = in(reg) width * size_of::<i32>(),
                    out("tmm0") _, out("tmm4") _, out("tmm5") _,
                    options(nostack),
                );
            }
        }
    }
}

/// `steps` times four independent products of tiles.
unsafe fn peak(steps: usize) {
    // SAFETY: AMX is available by the caller's contract; the tiles are zeros and go nowhere.
    unsafe {
        configure();
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
        release();
    }
}
