//! Where the tensors of a training are computed, by name. Knows no loop and no model.
//!
//! The place is always the configuration's, never the tensor library's own choice, which is the strongest backend that was
//! compiled in. Only the steps run there: responses of a policy are drawn by the engine, on the processor.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
// Its version of the bindings is this crate's choice; what calls them is the tensor library.
#[cfg(feature = "cuda")]
use cudarc as _;
use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::error::TrainError;

/// A place for tensors: `cpu`, `cuda` (the first GPU) or `cuda:N`.
///
/// Single-precision products on a GPU are rounded as its tensor units do (TF32: 10 bits of mantissa), so that numbers agree
/// with the processor's to about three digits and a run goes on only on the kind of device that it began on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, SerializeDisplay, DeserializeFromStr)]
pub enum TrainDevice {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU; needs the feature `cuda`, NVIDIA's driver, and NVRTC with the toolkit's headers.
    Cuda {
        /// The driver's number of it, from 0.
        index: u16,
    },
}

impl fmt::Display for TrainDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { index: 0 } => f.write_str("cuda"),
            Self::Cuda { index } => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for TrainDevice {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let index = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        let index = index.ok_or_else(|| TrainError::BadSetting {
            field: "device",
            got: text.to_owned(),
            expected: "cpu, cuda or cuda:N with the number of a GPU, from 0",
        })?;
        Ok(Self::Cuda { index })
    }
}

impl TrainDevice {
    /// Whether it is the processor: what is not written into configurations, which had no other choice once.
    pub fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }

    /// Tries whether it can be used here, so that this is known before hours of other work.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(self) -> Result<(), TrainError> {
        self.open().map(drop)
    }

    /// The device, which computes.
    ///
    /// # Errors
    /// What is missing.
    pub fn open(self) -> Result<Device, TrainError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::Cuda { index } => cuda(index).map_err(|problem| TrainError::NoDevice {
                device: self,
                problem,
            }),
        }
    }
}

/// Whether tensors there lie in the processor's memory, so that plain loops may take them.
pub(crate) fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: u16) -> Result<Device, String> {
    Err("this binary was built without CUDA; build with --features cuda".to_owned())
}

#[cfg(feature = "cuda")]
fn cuda(index: u16) -> Result<Device, String> {
    use burn::tensor::{DeviceType, Tensor};

    let num_gpus = Device::enumerate(DeviceType::Cuda).into_vec().len();
    if num_gpus == 0 {
        return Err("no NVIDIA GPU was found: libcuda cannot be loaded or sees none (is the driver installed, its folder in \
                    LD_LIBRARY_PATH, and the GPU in CUDA_VISIBLE_DEVICES?)"
            .to_owned());
    }
    if usize::from(index) >= num_gpus {
        return Err(format!("the driver sees {num_gpus} GPUs, numbered from 0"));
    }
    let headers = cubecl::cuda::install::cuda_path().map(|toolkit| toolkit.join("include"));
    if headers.is_none_or(|headers| !headers.is_dir()) {
        return Err(
            "CUDA's headers were not found, which kernels are compiled with: install the toolkit, or set CUDA_PATH to \
             the folder that has its include"
                .to_owned(),
        );
    }
    // Whatever else is missing (NVRTC above all) shows when a first kernel is compiled, in some places as a panic.
    let device = Device::cuda(usize::from(index));
    let sum = || (Tensor::<1>::ones([1], &device) + 1.0).try_into_data();
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(sum)) {
        Ok(Ok(_)) => Ok(device),
        Ok(Err(error)) => Err(format!("a first kernel failed: {error}")),
        Err(_) => Err(
            "a first kernel could not be compiled: is libnvrtc's folder in LD_LIBRARY_PATH, and of the driver's version \
             or older?"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_back_from_their_names() {
        let check = |text: &str, expect: TrainDevice, name: &str| {
            let device: TrainDevice = text.parse().unwrap();
            assert_eq!((device, device.to_string().as_str()), (expect, name));
            let json = serde_json::to_string(&device).unwrap();
            assert_eq!(json, format!("{name:?}"));
            assert_eq!(serde_json::from_str::<TrainDevice>(&json).unwrap(), expect);
        };
        check("cpu", TrainDevice::Cpu, "cpu");
        check("cuda", TrainDevice::Cuda { index: 0 }, "cuda");
        check("cuda:0", TrainDevice::Cuda { index: 0 }, "cuda");
        check("cuda:3", TrainDevice::Cuda { index: 3 }, "cuda:3");
    }

    #[test]
    fn other_names_are_refused_with_the_choice() {
        for text in [
            "",
            "gpu",
            "CUDA",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "cuda:70000",
            "cpu:0",
        ] {
            let error = text.parse::<TrainDevice>().unwrap_err().to_string();
            assert!(error.contains("cpu, cuda or cuda:N"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_number_in_a_configuration_is_no_device() {
        let error =
            toml::from_str::<std::collections::BTreeMap<String, TrainDevice>>("device = 0").unwrap_err();
        assert!(
            error.to_string().contains("integer `0`, expected a string"),
            "{error}"
        );
    }

    #[test]
    fn the_processor_is_always_there_and_far_gpus_never() {
        assert!(is_host(&TrainDevice::Cpu.open().unwrap()));
        assert!(is_host(&TrainDevice::Cpu.open().unwrap().autodiff()));
        let device = TrainDevice::Cuda { index: u16::MAX };
        let error = device.check().unwrap_err().to_string();
        assert!(error.starts_with("device cuda:65535: "), "{error}");
    }
}
