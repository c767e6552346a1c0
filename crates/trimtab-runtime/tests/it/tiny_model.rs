//! The tiny model of the testing feature, loaded.

use trimtab_model::PrecisionPlan;
use trimtab_runtime::testing::write_tiny_model;
use trimtab_runtime::{LoadOptions, LoadedModel};

pub(crate) fn load(num_threads: usize) -> LoadedModel {
    let folder = tempfile::tempdir().unwrap();
    let path = write_tiny_model(folder.path()).unwrap();
    LoadedModel::open(
        &path,
        LoadOptions {
            plan: PrecisionPlan::int8(),
            num_threads,
        },
    )
    .unwrap()
}
