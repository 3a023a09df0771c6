//! ViTMAE: config, positions, masking, encoder, decoder, loss.
#![forbid(unsafe_code)]
