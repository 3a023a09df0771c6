//! The picture that shows a reconstruction: one row an image, four panels a row.
//!
//! original | visible patches only | reconstruction | reconstruction with the visible patches
//!
//! Source: panels and order of the MAE demo notebook; its third panel, too, is the whole output.

use crate::{Image, ImageError, VitImageProcessor};

/// Grey of the removed patches.
const REMOVED: u8 = 128;
/// White of the gaps.
const GAP_COLOUR: u8 = 255;
/// Panels a row.
const PANELS: usize = 4;

/// Size of one panel and of its patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelShape {
    /// Channels of the pixels: 3 or more are shown as RGB by the first three, fewer as grey by the
    /// first.
    pub channels: usize,
    /// Panel height in pixels.
    pub height: usize,
    /// Panel width in pixels.
    pub width: usize,
    /// (height, width) of a patch in pixels.
    pub patch: (usize, usize),
}

/// What one row of the sheet shows.
#[derive(Clone, Copy, Debug)]
pub struct SheetRow<'a> {
    /// Normalised pixels `[C, H, W]`.
    pub original: &'a [f32],
    /// The model's output as normalised pixels `[C, H, W]`.
    pub reconstruction: &'a [f32],
    /// One value a patch, row by row: above ½ removed, else kept.
    pub mask: &'a [f32],
}

/// Draws the rows one below the other; `processor` turns normalised pixels into colours.
///
/// The result is RGB. Panels are separated and framed by white gaps of a 32nd of their width, at
/// least 2 pixels.
///
/// # Errors
/// [`ImageError::PanelShape`] if the patches do not tile the panel, [`ImageError::Values`] if a
/// row's slices have other lengths or there is no row, [`ImageError::TargetSize`] if the sheet
/// would be larger than 32,768 pixels a side, and those of [`VitImageProcessor::denormalise`].
pub fn sheet(
    rows: &[SheetRow<'_>],
    shape: PanelShape,
    processor: &VitImageProcessor,
) -> Result<Image, ImageError> {
    let PanelShape { channels, height, width, patch } = shape;
    if [channels, height, width, patch.0, patch.1].contains(&0)
        || height % patch.0 != 0
        || width % patch.1 != 0
    {
        let (patch_height, patch_width) = patch;
        return Err(ImageError::PanelShape { height, width, channels, patch_height, patch_width });
    }
    if rows.is_empty() {
        return Err(ImageError::Values { what: "rows of the sheet", found: 0, expected: 1 });
    }
    let gap = (width / 32).max(2);
    let sheet_width = gap + PANELS.saturating_mul(width.saturating_add(gap));
    let sheet_height = gap + rows.len().saturating_mul(height.saturating_add(gap));
    if sheet_width > 32_768 || sheet_height > 32_768 {
        let (width, height) = (sheet_width, sheet_height);
        return Err(ImageError::TargetSize { what: "sheet", width, height });
    }

    let data = vec![GAP_COLOUR; sheet_width * sheet_height * 3];
    let mut sheet = Image::new(sheet_width, sheet_height, 3, data)?;
    for (at, row) in rows.iter().enumerate() {
        let top = gap + at * (height + gap);
        for (panel, image) in panels(row, shape, processor)?.iter().enumerate() {
            paste(&mut sheet, image, (gap + panel * (width + gap), top));
        }
    }
    Ok(sheet)
}

/// The four RGB panels of one row.
fn panels(
    row: &SheetRow<'_>,
    shape: PanelShape,
    processor: &VitImageProcessor,
) -> Result<[Image; PANELS], ImageError> {
    let (rows, columns) = (shape.height / shape.patch.0, shape.width / shape.patch.1);
    if row.mask.len() != rows * columns {
        let (found, expected) = (row.mask.len(), rows * columns);
        return Err(ImageError::Values { what: "mask of the sheet", found, expected });
    }
    let sizes = [shape.channels, shape.height, shape.width];
    let original = shown(row.original, sizes, processor)?;
    let reconstruction = shown(row.reconstruction, sizes, processor)?;

    let mut visible = original.clone();
    let mut filled = original.clone();
    for y in 0..shape.height {
        for x in 0..shape.width {
            if row.mask[y / shape.patch.0 * columns + x / shape.patch.1] > 0.5 {
                let pixel = (y * shape.width + x) * 3..(y * shape.width + x) * 3 + 3;
                visible.data[pixel.clone()].fill(REMOVED);
                filled.data[pixel.clone()].copy_from_slice(&reconstruction.data[pixel]);
            }
        }
    }
    Ok([original, visible, reconstruction, filled])
}

/// Normalised pixels of any channel count as RGB.
fn shown(
    pixels: &[f32],
    [channels, height, width]: [usize; 3],
    processor: &VitImageProcessor,
) -> Result<Image, ImageError> {
    let planes = processor.display_planes(pixels, [channels, height, width])?;
    let plane = height * width;
    let pick = |colour: usize| if channels >= 3 { colour } else { 0 };
    let data = (0..plane)
        .flat_map(|at| [pick(0), pick(1), pick(2)].map(|channel| planes[channel * plane + at]))
        .collect();
    Image::new(width, height, 3, data)
}

/// Copies an RGB panel to (left, top).
fn paste(sheet: &mut Image, panel: &Image, (left, top): (usize, usize)) {
    for (y, row) in panel.data.chunks_exact(panel.width * 3).enumerate() {
        let start = ((top + y) * sheet.width + left) * 3;
        sheet.data[start..start + row.len()].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PerChannel;

    fn plain() -> VitImageProcessor {
        // Pixels in 0..=255 as they are.
        VitImageProcessor {
            do_rescale: false,
            image_mean: PerChannel::All(0.0),
            image_std: PerChannel::All(1.0),
            ..VitImageProcessor::default()
        }
    }

    #[test]
    fn panels_show_what_they_say() {
        for channels in [1, 3, 6] {
            let shape = PanelShape { channels, height: 2, width: 4, patch: (2, 2) };
            let original = vec![10.0; channels * 8];
            let reconstruction = vec![20.0; channels * 8];
            let mask = [0.0, 1.0];
            let row =
                SheetRow { original: &original, reconstruction: &reconstruction, mask: &mask };
            let sheet = sheet(&[row, row], shape, &plain()).unwrap();
            assert_eq!((sheet.width, sheet.height, sheet.channels), (2 + 4 * 6, 2 + 2 * 4, 3));
            let line: Vec<u8> = sheet.data[7 * sheet.width * 3..8 * sheet.width * 3]
                .chunks_exact(3)
                .map(|rgb| {
                    assert!(rgb[0] == rgb[1] && rgb[1] == rgb[2]);
                    rgb[0]
                })
                .collect();
            let w = [255, 255];
            let expected = [
                &w[..],
                &[10, 10, 10, 10],
                &w,
                &[10, 10, 128, 128],
                &w,
                &[20, 20, 20, 20],
                &w,
                &[10, 10, 20, 20],
                &w,
            ];
            assert_eq!(line, expected.concat());
            assert!(sheet.data[4 * sheet.width * 3..6 * sheet.width * 3].iter().all(|v| *v == 255));
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let shape = PanelShape { channels: 1, height: 2, width: 4, patch: (2, 2) };
        let row = SheetRow { original: &[0.0; 8], reconstruction: &[0.0; 8], mask: &[1.0] };
        let message =
            |rows: &[SheetRow<'_>], shape| sheet(rows, shape, &plain()).unwrap_err().to_string();
        assert_eq!(message(&[row], shape), "mask of the sheet: found 1 values, expected 2");
        assert_eq!(message(&[], shape), "rows of the sheet: found 0 values, expected 1");
        assert_eq!(
            message(&[row], PanelShape { patch: (2, 3), ..shape }),
            "sheet: patches of 2x3 do not tile a panel of 2x4 with 1 channels"
        );
        let short = SheetRow { original: &[0.0; 7], mask: &[1.0, 0.0], ..row };
        assert_eq!(message(&[short], shape), "pixels to display: found 7 values, expected 8");
    }
}
