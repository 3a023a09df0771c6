//! Reads and writes ViTMAE checkpoints safely in every layout.
#![forbid(unsafe_code)]
