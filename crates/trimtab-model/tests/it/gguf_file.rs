//! Small GGUF files for tests: metadata, then f32 tensors. Knows the layout, written down a second time.

use trimtab_checkpoint::Checkpoint;

/// A file under construction.
#[derive(Clone, Default)]
pub(crate) struct GgufFile {
    num_values: u64,
    values: Vec<u8>,
    num_tensors: u64,
    tensors: Vec<u8>,
    data: Vec<u8>,
}

impl GgufFile {
    pub(crate) fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.num_values += 1;
        push_text(&mut self.values, key);
        self.values.extend(kind.to_le_bytes());
        self.values.extend(bytes);
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.value(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        self.value(key, 8, &bytes)
    }

    /// An array of elements of type `kind`.
    pub(crate) fn array(self, key: &str, kind: u32, elements: &[Vec<u8>]) -> Self {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((elements.len() as u64).to_le_bytes());
        bytes.extend(elements.concat());
        self.value(key, 9, &bytes)
    }

    /// An f32 tensor with its axes outermost first.
    pub(crate) fn tensor(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.num_tensors += 1;
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        push_text(&mut self.tensors, name);
        self.tensors.extend((shape.len() as u32).to_le_bytes());
        for &len in shape.iter().rev() {
            self.tensors.extend((len as u64).to_le_bytes());
        }
        self.tensors.extend(0_u32.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.data
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend(self.num_tensors.to_le_bytes());
        out.extend(self.num_values.to_le_bytes());
        out.extend(&self.values);
        out.extend(&self.tensors);
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    pub(crate) fn open(&self) -> Checkpoint {
        Checkpoint::from_gguf_bytes(self.bytes()).unwrap()
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
