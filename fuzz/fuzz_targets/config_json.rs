//! The input is a `config.json` of the model hub.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::config_json(bytes);
});
