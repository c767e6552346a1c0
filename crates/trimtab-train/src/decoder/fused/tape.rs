//! Between the tape and slices: the one place that knows both. Knows no layer.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor, Flex,
};
use burn::tensor::{DType, Tensor, TensorData};

/// The CPU, on the tape.
type Taped = Autodiff<Flex>;
/// A tensor on the tape.
type TapedTensor = <Taped as burn::backend::BackendTypes>::FloatTensorPrimitive;

/// Values of a tensor that is in memory, row after row.
#[derive(Debug, Clone)]
pub(super) struct Values(FlexTensor);

impl Values {
    fn new(tensor: &FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[f32] {
        self.0.as_slice().expect("tensors were made contiguous, in f32")
    }

    /// Lengths of the axes.
    pub(super) fn shape(&self) -> Vec<usize> {
        self.0.layout().shape().to_vec()
    }

    /// Length of the last axis.
    pub(super) fn row_len(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }
}

/// What is left of a forward pass for its way back.
pub(super) trait Function<const N: usize>: Clone + Send + std::fmt::Debug + 'static {
    /// Gradients by the inputs that are `wanted`, in the inputs' order, of the inputs' shapes.
    fn backward(self, grad: &[f32], wanted: [bool; N]) -> [Option<Gradient>; N];
}

/// A gradient and its shape.
#[derive(Debug)]
pub(super) struct Gradient {
    pub(super) values: Vec<f32>,
    pub(super) shape: Vec<usize>,
}

/// Result of a forward pass.
#[derive(Debug)]
pub(super) struct Output<F> {
    pub(super) values: Vec<f32>,
    pub(super) shape: Vec<usize>,
    pub(super) function: F,
}

/// Runs `forward` and records it where an input is on the tape; `None` if an input is not in this process's memory.
pub(super) fn apply<F: Function<N>, const N: usize, const D: usize>(
    inputs: [DispatchTensor; N],
    forward: impl FnOnce([Values; N]) -> Output<F>,
) -> Option<Tensor<D>> {
    let on_tape = |input: &DispatchTensor| input.autodiff != DispatchAutodiffContext::Disabled;
    if !inputs.iter().any(on_tape) {
        let plain = each(inputs, plain)?;
        let out = forward(plain.map(|input| Values::new(&input)));
        return Some(Tensor::from_primitive::<Flex>(tensor(out.values, out.shape)));
    }
    let inputs = each(inputs, taped)?;
    let nodes = inputs.each_ref().map(TapedTensor::node);
    let out = forward(inputs.map(|input| Values::new(&input.into_primitive())));
    let prepared = Recorded::<F>::default().prepare::<NoCheckpointing>(nodes);
    let primitive = tensor(out.values, out.shape);
    let out = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(out.function, primitive),
        OpsKind::UnTracked(prepared) => prepared.finish(primitive),
    };
    Some(Tensor::from_primitive::<Taped>(out))
}

/// All of them, or none.
fn each<T: std::fmt::Debug, const N: usize>(
    inputs: [DispatchTensor; N],
    of: impl Fn(DispatchTensor) -> Option<T>,
) -> Option<[T; N]> {
    let all: Option<Vec<T>> = inputs.into_iter().map(of).collect();
    all?.try_into().ok()
}

fn plain(input: DispatchTensor) -> Option<FlexTensor> {
    let tensor = <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(input);
    let tensor = tensor.ok()?.float();
    (tensor.dtype() == DType::F32).then_some(tensor)
}

fn taped(input: DispatchTensor) -> Option<TapedTensor> {
    if input.autodiff == DispatchAutodiffContext::Disabled {
        return plain(input).map(Taped::from_inner);
    }
    let tensor = <DispatchTensor as DispatchKindConversion<Taped>>::try_into_backend(input);
    let tensor = tensor.ok()?.float();
    (tensor.primitive().dtype() == DType::F32).then_some(tensor)
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A step of the tape that runs a [`Function`] backwards.
#[derive(Debug)]
struct Recorded<F>(std::marker::PhantomData<F>);

impl<F> Default for Recorded<F> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<F: Function<N>, const N: usize> Backward<Flex, N> for Recorded<F> {
    type State = F;

    fn backward(self, ops: Ops<F, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = Values::new(&grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let by_inputs = ops.state.backward(grad.as_slice(), wanted);
        drop(grad);
        for (parent, gradient) in ops.parents.into_iter().zip(by_inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, tensor(gradient.values, gradient.shape));
            }
        }
    }
}
