//! How the axes of a tensor lie in a file compared with ours.

/// The order of a stored tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As ours.
    Same,
    /// `[in, out]` for our `[out, in]`, as Keras keeps the kernel of a dense layer.
    Transposed,
    /// `[PH, PW, C, D]` for our `[D, C, PH, PW]`, as Keras keeps the kernel of a convolution.
    Hwio,
}

impl Order {
    /// For each axis of the file, which of ours it is; none where it is not reordered.
    fn axes(self) -> Option<&'static [usize]> {
        match self {
            Self::Same => None,
            Self::Transposed => Some(&[1, 0]),
            Self::Hwio => Some(&[2, 3, 1, 0]),
        }
    }

    /// The shape in the file of what is `ours` here; a shape of another rank stays as it is.
    pub fn stored_shape(self, ours: &[usize]) -> Vec<usize> {
        match self.axes() {
            Some(axes) if axes.len() == ours.len() => axes.iter().map(|&axis| ours[axis]).collect(),
            _ => ours.to_vec(),
        }
    }

    /// Our shape of what is `stored` in the file; a shape of another rank stays as it is.
    pub fn our_shape(self, stored: &[usize]) -> Vec<usize> {
        match self.axes() {
            Some(axes) if axes.len() == stored.len() => {
                let mut ours = vec![0; stored.len()];
                axes.iter().zip(stored).for_each(|(&axis, &side)| ours[axis] = side);
                ours
            }
            _ => stored.to_vec(),
        }
    }

    /// `values` of the file in our order; `ours` is our shape.
    pub(crate) fn to_ours(self, values: Vec<f32>, ours: &[usize]) -> Vec<f32> {
        let Some(axes) = self.axes().filter(|axes| axes.len() == ours.len()) else { return values };
        // The stride of each of our axes in the file.
        let stored = self.stored_shape(ours);
        let mut strides = vec![0; ours.len()];
        let mut stride = 1;
        for (&axis, &side) in axes.iter().zip(&stored).rev() {
            strides[axis] = stride;
            stride *= side;
        }
        gather(&values, ours, &strides)
    }

    /// Our `values` in the order of the file; `ours` is our shape.
    pub(crate) fn to_stored(self, values: Vec<f32>, ours: &[usize]) -> Vec<f32> {
        let Some(axes) = self.axes().filter(|axes| axes.len() == ours.len()) else { return values };
        let mut our_strides = vec![0; ours.len()];
        let mut stride = 1;
        for (axis, &side) in ours.iter().enumerate().rev() {
            our_strides[axis] = stride;
            stride *= side;
        }
        let strides: Vec<usize> = axes.iter().map(|&axis| our_strides[axis]).collect();
        gather(&values, &self.stored_shape(ours), &strides)
    }
}

/// The values of a view with `shape` and `strides`, row-major.
pub(crate) fn gather(values: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let mut out = Vec::with_capacity(count);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        out.push(values[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(n: usize) -> Vec<f32> {
        (0..n).map(|i| i as f32).collect()
    }

    #[test]
    fn a_dense_kernel_is_transposed() {
        assert_eq!(Order::Transposed.stored_shape(&[2, 3]), [3, 2]);
        assert_eq!(Order::Transposed.our_shape(&[3, 2]), [2, 3]);
        assert_eq!(Order::Transposed.to_ours(count(6), &[2, 3]), [0., 2., 4., 1., 3., 5.]);
    }

    #[test]
    fn a_convolution_is_height_width_in_out() {
        // D 2, C 3, PH 1, PW 2: the file's element (y, x, c, d) is number ((y·2 + x)·3 + c)·2 + d.
        let ours = [2, 3, 1, 2];
        assert_eq!(Order::Hwio.stored_shape(&ours), [1, 2, 3, 2]);
        assert_eq!(Order::Hwio.our_shape(&[1, 2, 3, 2]), ours);
        let values = Order::Hwio.to_ours(count(12), &ours);
        assert_eq!(values, [0., 6., 2., 8., 4., 10., 1., 7., 3., 9., 5., 11.]);
    }

    #[test]
    fn every_order_leads_back() {
        for (order, shape) in
            [(Order::Same, &[2, 3][..]), (Order::Transposed, &[4, 5]), (Order::Hwio, &[2, 3, 4, 5])]
        {
            let values = count(shape.iter().product());
            let there = order.to_stored(values.clone(), shape);
            assert_eq!(order.to_ours(there, shape), values);
            assert_eq!(order.our_shape(&order.stored_shape(shape)), shape);
        }
        assert_eq!(Order::Transposed.stored_shape(&[7]), [7], "a shape of another rank");
    }
}
