use super::pools;
use super::rounded::{assert_rounded, both};
use vitmae_cpu::gather::{self, Shape};
use vitmae_cpu::values::Bf16;
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::gather as reference;

/// B, rows, K, D; more chosen than there are rows, so that some repeat.
const SHAPES: [[usize; 4]; 6] =
    [[1, 1, 1, 1], [2, 5, 3, 7], [3, 4, 9, 17], [2, 196, 49, 64], [33, 3, 2, 33], [2, 4, 0, 5]];

#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    for [batch, rows, kept, width] in SHAPES {
        let shape = Shape { batch, rows, kept, width };
        let x = draws.vec_f32(batch * rows * width);
        let dy = draws.vec_f32(batch * kept * width);
        let ids: Vec<u32> = (0..batch * kept).map(|_| draws.integer(0..=rows - 1) as u32).collect();
        let name = |what: &str| format!("{what} {shape:?}");
        let expected = reference::forward(&widen(&x), &ids, batch, width);
        pools::assert_output(&name("y"), &expected, Tolerance::EXACT, |y| {
            gather::forward(&x, &ids, shape, y);
        });
        let expected = reference::backward(&widen(&dy), &ids, rows, batch, width);
        pools::assert_output(&name("dx"), &expected, tolerance_at(kept, 3.0), |dx| {
            gather::backward(&dy, &ids, shape, dx);
        });
    }
}

#[test]
#[should_panic(expected = "gather: an index")]
fn a_row_that_does_not_exist_is_refused() {
    let shape = Shape { batch: 1, rows: 2, kept: 1, width: 1 };
    gather::forward(&[0.0; 2], &[2], shape, &mut [0.0]);
}

#[test]
fn bf16_is_moved_as_it_is_and_what_is_chosen_once_comes_back() {
    let mut draws = Draws::new(2);
    for [batch, rows, kept, width] in SHAPES {
        // Every row at most once.
        let kept = kept.min(rows);
        let shape = Shape { batch, rows, kept, width };
        let (x, x_wide) = both(&draws.vec_f32(batch * rows * width));
        let (dy, dy_wide) = both(&draws.vec_f32(batch * kept * width));
        let ids: Vec<u32> = (0..batch)
            .flat_map(|_| draws.permutation(rows).into_iter().take(kept).collect::<Vec<_>>())
            .map(|id| id as u32)
            .collect();
        let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
        gather::forward(&x_wide, &ids, shape, &mut y);
        gather::backward(&dy_wide, &ids, shape, &mut dx);
        let name = |what: &str| format!("{what} {shape:?}");
        assert_rounded(&name("y"), [&y], |[y]| gather::forward(&x, &ids, shape, y));
        assert_rounded(&name("dx"), [&dx], |[dx]| gather::backward(&dy, &ids, shape, dx));
    }
}

#[test]
fn sums_in_bf16_are_rounded_at_every_term() {
    let mut draws = Draws::new(3);
    for [batch, rows, kept, width] in SHAPES {
        let shape = Shape { batch, rows, kept, width };
        let (dy, dy_wide) = both(&draws.vec_f32(batch * kept * width));
        let ids: Vec<u32> = (0..batch * kept).map(|_| draws.integer(0..=rows - 1) as u32).collect();
        let mut expected = vec![0.0f32; batch * rows * width];
        for (i, &id) in ids.iter().enumerate() {
            let row = i / kept * rows + id as usize;
            for column in 0..width {
                let sum = &mut expected[row * width + column];
                *sum = Bf16::from_f32(*sum + dy_wide[i * width + column]).to_f32();
            }
        }
        let name = format!("dx {shape:?}");
        assert_rounded(&name, [&expected], |[dx]| gather::backward(&dy, &ids, shape, dx));
    }
}

#[test]
#[should_panic(expected = "gather: x and y of two types")]
fn a_gather_into_another_type_is_refused() {
    let shape = Shape { batch: 1, rows: 2, kept: 1, width: 1 };
    gather::forward(&[Bf16::ONE; 2], &[1], shape, &mut [0.0f32]);
}
