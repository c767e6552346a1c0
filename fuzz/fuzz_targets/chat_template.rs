//! The input is a chat template.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::chat_template(bytes);
});
